"""The tuning file: what was fastest on a kind of device, read as it was written, or refused."""

from __future__ import annotations

import pytest

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import BundleError
from polyhead.serving.tuning import TUNING, Choice, Tuning

CHOICE = Choice(
    graph="fused-onnx", runtime="onnxruntime", threads=4, batch=8, rows_per_second=99.5, machine="a processor"
)


@pytest.mark.parametrize("devices", [{}, {"cpu": CHOICE}, {"cpu": CHOICE, "cuda": CHOICE}])
def test_it_is_read_as_it_was_written(devices: dict[str, Choice]):
    tuning = Tuning(devices=devices)
    data = tuning.dump()
    assert Tuning.load(data) == tuning
    assert data.endswith(b"}\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b'{"devices": {"tpu": {}}}',
        b'{"devices": {"cpu": {"graph": "g"}}}',
        Tuning(devices={"cpu": CHOICE}).dump().replace(b"99.5", b"0.0"),
        Tuning(devices={"cpu": CHOICE}).dump().replace(b'"batch": 8', b'"batch": "8"'),
        Tuning(devices={"cpu": CHOICE}).dump().replace(b'"batch"', b'"rows"'),
    ],
)
def test_anything_else_is_refused(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        Tuning.load(data)


def test_a_bundle_hands_it_out(mlp, copy_of, forge):
    assert mlp.bundle.tuning() is None
    folder = copy_of(mlp)
    tuning = Tuning(devices={"cpu": CHOICE})
    forge(folder, TUNING, tuning.dump())
    assert Bundle.open(folder).tuning() == tuning


def test_a_graph_that_the_bundle_lacks_is_named(mlp, copy_of, forge):
    folder = copy_of(mlp)
    forge(folder, TUNING, Tuning(devices={"cuda": CHOICE.model_copy(update={"graph": "fused-onnx-fp16"})}).dump())
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).tuning()
    assert str(caught.value) == f"{folder}: tuning.json names graph 'fused-onnx-fp16': measure again"
