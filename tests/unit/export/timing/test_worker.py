"""What a contender's process does, here without the process."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from polyhead.export.errors import ExportError
from polyhead.export.timing.contenders import Contender, NetworkPlace
from polyhead.export.timing.worker import LEAST, Subject
from polyhead.serving.errors import BundleError, GoldenMismatch

EAGER = Contender("eager", "fp32", "cpu")
SCRIPT = Contender("torchscript", "fp32", "cpu", "fused-torchscript")


def job(bundle, contender: Contender, place: NetworkPlace | None = None) -> dict[str, object]:
    network = {} if place is None else {n: None if v is None else str(v) for n, v in asdict(place).items()}
    return {
        "bundle": str(bundle.folder),
        "digest": bundle.digest,
        "contender": asdict(contender),
        "network": network,
        "threads": 1,
    }


@pytest.mark.parametrize("contender", [EAGER, SCRIPT])
def test_a_batch_is_golden_rows_in_turn_and_its_answers_are_the_golden_ones(made, contender: Contender):
    subject = Subject.load(job(made.bundle, contender, made.place))
    golden = made.bundle.golden()
    rows = subject.rows(golden.rows + 3)
    index = [*range(golden.rows), 0, 1, 2]
    for name, array in rows.items():
        np.testing.assert_array_equal(array, golden.inputs[name][index])
        assert array.flags.c_contiguous
    for head, output in subject.run(rows).items():
        np.testing.assert_allclose(output, golden.outputs[head][index], rtol=1e-4, atol=1e-5)
    subject.prove(golden.rows + 3)


def test_a_visit_lasts_about_as_long_as_asked_and_a_few_passes_at_least(made):
    subject = Subject.load(job(made.bundle, SCRIPT))
    least = subject.timed(1, 0.0, 0)
    assert len(least) == LEAST
    assert all(seconds > 0 for seconds in least)
    assert sum(subject.timed(1, 0.05, 1)) < 5


@pytest.mark.parametrize("contender", [EAGER, SCRIPT])
def test_answers_of_other_weights_are_wrong(made, other, mixed, contender: Contender):
    with pytest.raises(GoldenMismatch, match=r"head '\w+' "):
        Subject.load(job(mixed, contender, other.place))


def test_a_network_of_another_spec_is_refused(made, tmp_path):
    text = made.place.spec.read_text().replace("alcohol:", "strength:")
    (tmp_path / "spec.yaml").write_text(text)
    place = NetworkPlace(None, made.place.factory, made.place.weights, tmp_path / "spec.yaml")
    with pytest.raises(ExportError, match=r"heads cultivar, strength, bundle wine/1.0 has cultivar, alcohol: give the"):
        Subject.load(job(made.bundle, EAGER, place))


def test_a_bundle_that_changed_since_is_refused(made):
    with pytest.raises(BundleError, match="was changed while it was timed"):
        Subject.load({**job(made.bundle, SCRIPT), "digest": "0" * 64})
