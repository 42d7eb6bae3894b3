"""A whole race in real processes. Which contender is fastest is not looked at: times are this machine's affair."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from polyhead.export.errors import ExportError
from polyhead.export.timing.contenders import Contender, NetworkPlace
from polyhead.export.timing.measuring import NO_EAGER, Effort, measure
from polyhead.export.timing.process import ContenderProcess, Refused

SCRIPT = Contender("torchscript", "fp32", "cpu", "fused-torchscript")
BRIEF = Effort(batches=(1, 5), rounds=2, seconds=0.0)


def test_what_answers_right_is_timed_and_what_does_not_is_refused_with_the_reason(made, mixed):
    steps = []
    found = measure(mixed, ["cpu"], BRIEF, made.place, lambda text, done, steps_: steps.append((text, done, steps_)))
    timed = {(timing.contender, timing.batch): timing for timing in found.timings}
    assert set(timed) == {(name, batch) for name in ("eager", "onnxruntime fp32") for batch in (1, 5)}
    for timing in timed.values():
        assert 0 < timing.low_seconds <= timing.median_seconds <= timing.high_seconds
        assert timing.rows_per_second == pytest.approx(timing.batch / timing.median_seconds)
        assert timing.reference == "eager"
        assert timing.passes == 2 * 3
    refused = {refusal.contender: refusal for refusal in found.refused}
    assert {"torchscript fp32", "program fp32"} <= set(refused)
    assert refused["torchscript fp32"].wrong
    assert "does not reproduce the golden samples" in refused["torchscript fp32"].reason
    assert not refused["program fp32"].wrong
    assert refused["program fp32"].reason.startswith("torch.export cannot load graphs/fused.pt2")
    assert (found.model, found.bundle, found.eager) == ("wine/1.0", mixed.digest, None)
    assert (found.threads, found.rounds, found.batches) == (1, 2, (1, 5))
    assert "torch" in found.machines["cpu"]
    assert [done for _, done, _ in steps] == list(range(steps[0][2]))
    assert psutil.Process().children() == []


def test_where_nothing_can_be_timed_the_reasons_are_told(mixed):
    graphs = tuple(g for g in mixed.manifest.graphs if g.format == "program")
    only = type(mixed)(mixed.folder, mixed.manifest.model_copy(update={"graphs": graphs}), mixed.digest)
    with pytest.raises(ExportError, match=r"nothing could be timed \(program fp32 on cpu: torch.export cannot load"):
        measure(only, ["cpu"], BRIEF)
    assert NO_EAGER.startswith("not timed: give --run")


def test_a_network_that_cannot_be_loaded_ends_it_at_once(made, tmp_path):
    place = NetworkPlace(run=tmp_path)
    with pytest.raises(ExportError, match=r"the eager network cannot be timed on cpu: .* is no finished training run"):
        measure(made.bundle, ["cpu"], BRIEF, place)
    assert psutil.Process().children() == []


def test_a_process_that_gives_no_answer_is_given_up(made):
    with (
        ContenderProcess(made.bundle, SCRIPT, None, 1, limit=0.05) as process,
        pytest.raises(Refused, match=r"gave no answer in 0\.05 s"),
    ):
        process.load()
    assert psutil.Process().children() == []


def test_a_process_that_is_killed_is_told(made):
    with ContenderProcess(made.bundle, SCRIPT, None, 1) as process:
        (child,) = psutil.Process().children()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(Refused, match="its process was killed by signal 9"):
            process.load()
