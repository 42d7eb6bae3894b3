"""The measurement of the GPU's hot path, on small networks on the CPU, and its report."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import contest
from benchmarks.gpu.contest import CONTENDERS, Timing, measure
from benchmarks.gpu.report import table, write


def test_every_contender_answers_alike_and_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "ROUND", 1e-3)
    workload = "minilm"
    timings = measure(workload, tmp_path, "cpu", ["onnxruntime"], (1, 3), rounds=1, small=True)
    assert [(t.workload, t.runtime, t.mode, t.batch) for t in timings] == [
        (workload, "onnxruntime", "eager", batch) for batch in (1, 3)
    ]
    for t in timings:
        assert tuple(t.seconds) == CONTENDERS
        assert min(t.seconds.values()) > 0
        assert t.over_replay[0] == pytest.approx(t.seconds["handler"] / t.seconds["replay"])
        assert t.per_head[0] == pytest.approx(t.seconds["per head"] / t.seconds["handler"])


def test_the_report_holds_every_figure(tmp_path):
    seconds = dict(zip(CONTENDERS, (1e-3, 1.05e-3, 1.1e-3, 6e-3), strict=True))
    timings = [
        Timing(workload, runtime, "cuda graphs", batch, seconds, (1.1, 1.0, 1.2), (5.45, 5.0, 6.0))
        for workload in ("resnet50", "minilm")
        for runtime in ("program", "onnxruntime")
        for batch in (1, 32)
    ]
    assert "| 32 | 1.000 | 1.050 | 1.100 | 6.000 | **1.10** (1.00 to 1.20) | **5.45** (5.00 to 6.00) |" in table(
        timings
    )
    page = write(timings, {"device": "a GPU"}, "In words.", tmp_path / "reports")
    text = page.read_text(encoding="utf-8")
    assert "device: a GPU." in text
    assert text.count("\n## ") == 4
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(kept["timings"]) == 8
    assert kept["timings"][0]["seconds"] == seconds
