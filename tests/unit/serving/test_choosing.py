"""Which graph is run: what was asked for, what was measured, else fp32."""

from __future__ import annotations

import pytest

from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import choose
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError, RuntimeUnavailable
from polyhead.serving.tuning import TUNING, Choice, Tuning

CHOICE = Choice(
    graph="fused-torchscript", runtime="torchscript", threads=2, batch=64, rows_per_second=1234.5, machine="a machine"
)


@pytest.fixture
def tuned(mlp, copy_of, forge):
    """A bundle with what was measured for the CPU in it."""
    folder = copy_of(mlp)
    forge(folder, TUNING, Tuning(devices={"cpu": CHOICE}).dump())
    return Bundle.open(folder)


def test_where_nothing_was_measured_it_is_the_first_runtime_with_a_graph_of_fp32(mlp):
    chosen = choose(mlp.bundle)
    assert (chosen.graph.id, chosen.runtime, chosen.why) == (
        "fused-onnx",
        "onnxruntime",
        "the first runtime with a graph",
    )


def test_what_was_measured_is_followed_on_that_kind_of_device(tuned):
    chosen = choose(tuned, "auto", "cpu")
    assert (chosen.graph.id, chosen.runtime) == ("fused-torchscript", "torchscript")
    assert chosen.why == "the fastest on cpu by polyhead bench (a machine)"
    assert choose(tuned, "auto", "cuda:0").runtime == "onnxruntime"
    engine = Engine.load(tuned, "auto", "cpu")
    assert (engine.graph.id, engine.runtime.name) == ("fused-torchscript", "torchscript")
    engine.replay_golden()


def test_what_is_asked_for_comes_before_what_was_measured(tuned):
    assert choose(tuned, "onnxruntime").runtime == "onnxruntime"
    assert choose(tuned, "onnxruntime").why == "as asked"
    assert choose(tuned, "auto", "cpu", "fp32").graph.id == "fused-onnx"


def test_a_graph_that_is_not_there_is_refused_with_what_there_is(tuned):
    with pytest.raises(RuntimeUnavailable, match=r"no graph of int8 for runtime 'auto' \(it has: onnx fp32"):
        choose(tuned, "auto", "cpu", "int8")


def test_a_damaged_tuning_file_is_refused(mlp, copy_of, forge):
    folder = copy_of(mlp)
    for data, message in (
        (b"{}", "tuning.json is damaged"),
        (Tuning(devices={"cpu": CHOICE.model_copy(update={"graph": "g"})}).dump(), "tuning.json names graph 'g'"),
    ):
        forge(folder, TUNING, data)
        with pytest.raises(BundleError, match=f"{message}.*measure again"):
            choose(Bundle.open(folder))


def test_a_tuning_file_is_read_as_it_was_written():
    tuning = Tuning(devices={"cpu": CHOICE, "cuda": CHOICE})
    assert Tuning.load(tuning.dump()) == tuning
    with pytest.raises(ValueError, match="rows_per_second"):
        Tuning.load(tuning.dump().replace(b"1234.5", b"-1"))
