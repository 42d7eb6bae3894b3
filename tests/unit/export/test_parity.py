"""The gate's own figures and rules, on a network that answers what it is given, beside graphs written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from polyhead.export import cases, parity
from polyhead.export.errors import ExportError, ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.models.spec import ModelSpec
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph, Precision
from polyhead.serving.runtimes import base

SPEC = ModelSpec.parse(
    {
        "name": "echo",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [3]}},
        "heads": {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}},
    }
)

BRANCHES = (
    "; a graph holds no branch of Python on values or sizes: write it with torch.where, or leave --format onnx out"
)


class Echo(nn.Module):
    """Its logits are what it is given."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"kind": x * 1}


def written(*nodes: onnx.NodeProto, dtype: int = TensorProto.FLOAT, **constants: Array) -> bytes:
    """A graph from `x` to `kind`, both `[batch, 3]`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    kind = helper.make_tensor_value_info("kind", dtype, ["batch", 3])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "echo", [x], [kind], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def entry(precision: Precision = "fp32") -> Graph:
    return Graph(
        id="fused-onnx",
        file="graphs/fused.onnx",
        format="onnx",
        precision=precision,
        inputs=("x",),
        outputs=("kind",),
        tolerance=parity.TOLERANCE[precision],
        agreement=parity.AGREEMENT[precision],
    )


def check(data: bytes, rows: Array, precision: Precision = "fp32") -> parity.Parity:
    graph = entry(precision)
    runtime = base.load("onnxruntime", graph, {graph.file: data}, "cpu", 1)
    return parity.check(graph, runtime, FusedGraph(Echo(), SPEC), [{"x": rows}])


def refused(data: bytes, rows: Array, precision: Precision = "fp32", error: type[ExportError] = ParityError) -> str:
    with pytest.raises(error) as caught:
        check(data, rows, precision)
    assert type(caught.value) is error
    return str(caught.value)


def added(*offset: float) -> bytes:
    return written(helper.make_node("Add", ["x", "offset"], ["kind"]), offset=np.array(offset, np.float32))


def logits(margins: Sequence[float]) -> Array:
    """Rows that say `a`, by these margins over `b`."""
    return np.array([[1, 1 - margin, 0] for margin in margins], np.float32)


# --- figures --------------------------------------------------------------------------------------------------------


def test_differences_and_decisions_are_kept_by_case_and_head():
    found = parity.Parity("fused-onnx", "onnxruntime", "cpu")
    assert (found.largest, found.agreement) == (0.0, 1.0)  # nothing was run
    found.note("batch 1", "kind", 0.25, (1, 1))
    found.note("batch 2", "kind", 0.125, (2, 1))
    found.note("batch 2", "size", 0.5, (0, 0))
    assert found.batches == {"batch 1": {"kind": 0.25}, "batch 2": {"kind": 0.125, "size": 0.5}}
    assert found.heads == {"kind": 0.25, "size": 0.5}
    assert found.decisions == {"kind": (3, 2), "size": (0, 0)}
    assert found.largest == 0.5
    assert found.agreement == 2 / 3  # a head that decides nothing agrees


def test_the_agreement_is_that_of_the_worst_head():
    found = parity.Parity("fused-onnx", "onnxruntime", "cpu")
    found.note("batch 7", "kind", 0, (1000, 1000))
    found.note("batch 7", "intent", 0, (4, 3))
    assert found.agreement == 0.75


def test_the_proof_is_the_worst_of_all_devices():
    made = []
    for device, difference, same in (("cpu", 0.25, 3), ("cuda:0", 0.5, 4), ("cuda:1", 0.125, 4)):
        made.append(parity.Parity("fused-onnx", "onnxruntime", device))
        made[-1].note("batch 7", "kind", difference, (4, same))
    proof = parity.proof(made)
    assert (proof.largest, proof.agreement, proof.devices) == (0.5, 0.75, ("cpu", "cuda"))


def test_a_graph_that_is_the_network_has_no_difference():
    rows = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    found = check(written(helper.make_node("Identity", ["x"], ["kind"])), rows)
    assert found.heads == {"kind": 0.0}
    batches = [f"batch {size}" for size in (1, 2, 3, 7, 64)]
    assert list(found.batches) == [*batches, "row alone against row in batch"]
    assert (found.graph, found.runtime, found.device) == ("fused-onnx", "onnxruntime", "cpu")


@pytest.mark.parametrize("rows", [2, 10, 64, 80])
def test_each_row_is_decided_once(rows):
    """Not once for each batch that it is in, nor where a graph is only compared with itself."""
    found = check(added(0, 0, 0), logits([0.5] * rows))
    assert found.decisions == {"kind": (min(rows, 64), min(rows, 64))}


# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 31, 63])
def test_int8_may_decide_otherwise_in_one_row_of_sixty_four(place):
    margins = np.full(64, 0.5)
    margins[place] = 0.12  # clear, for it is wider than twice the absolute tolerance; and less than what is added
    found = check(added(0, 0.15, 0), logits(margins), "int8")
    assert found.decisions == {"kind": (64, 63)}
    assert found.agreement == 63 / 64 >= parity.AGREEMENT["int8"]
    assert parity.proof([found]).agreement == 63 / 64


@pytest.mark.parametrize("places", [(0, 1), (31, 62), (62, 63)])
def test_int8_may_not_decide_otherwise_in_two(places):
    margins = np.full(64, 0.5)
    margins[list(places)] = 0.12
    assert refused(added(0, 0.15, 0), logits(margins), "int8") == (
        "head 'kind' of graph graphs/fused.onnx (onnxruntime on cpu) is not eager's: over all cases, 2 of 64 clear "
        "decisions differ, 98.0% must be the same; keep the head in fp32 (--keep-fp32 kind), or leave --precision int8 "
        "out"
    )


def test_a_decision_that_eager_hardly_makes_does_not_count():
    found = check(added(0, 0.13, 0), logits([0.5] * 32 + [0.08] * 32), "int8")
    assert found.decisions == {"kind": (32, 32)}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_may_decide_otherwise_in_no_row_of_sixty_four(precision):
    margins = np.full(64, 0.5)
    margins[63] = 0.03
    message = refused(added(0, 0.04, 0), logits(margins), precision)
    assert "1 of 64 clear decisions differ, 99.9% must be the same" in message
    assert message.endswith(f"or leave --precision {precision} out")


def test_values_are_held_to_the_tolerance_whatever_is_decided():
    message = refused(added(0.2, 0.2, 0.2), logits([0.5] * 64), "int8")  # 0.05 and a tenth of 1
    assert (
        "is not eager's: batch 1, shape [1, 3]: error 0.2 in row 0, allowed 0.15 (3 of 3 values beyond it)" in message
    )


# --- numbers --------------------------------------------------------------------------------------------------------


def test_another_type_of_the_same_numbers_is_refused():
    data = written(helper.make_node("Cast", ["x"], ["kind"], to=TensorProto.DOUBLE), dtype=TensorProto.DOUBLE)
    assert refused(data, logits([0.5] * 4)) == (
        "head 'kind' of graph graphs/fused.onnx (onnxruntime on cpu) is not eager's: batch 1, shape [1, 3]: float64, "
        f"eager has float32{BRANCHES}"
    )


@pytest.mark.parametrize(
    ("precision", "way_out"),
    [
        ("fp32", BRANCHES),
        ("fp16", "; fp16 ends at 65504: export bf16, which does not, or scale what is so large"),
        ("bf16", "; keep the head in fp32 (--keep-fp32 kind), or leave --precision bf16 out"),
        ("int8", "; keep the head in fp32 (--keep-fp32 kind), or leave --precision int8 out"),
    ],
)
def test_numbers_that_only_the_graph_loses_are_refused(precision, way_out):
    """A graph that scales, and scales back, beyond what its numbers hold."""
    nodes = [helper.make_node("Mul", ["x", "much"], ["large"]), helper.make_node("Div", ["large", "much"], ["kind"])]
    data = written(*nodes, much=np.float32(3e38))
    rows = logits([0.5] * 4)
    rows[3, 0] = 2
    assert refused(data, rows, precision) == (
        "head 'kind' of graph graphs/fused.onnx (onnxruntime on cpu) is not eager's: batch 7, shape [7, 3]: "
        f"1 of its values are not finite{way_out}"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_the_network_itself_loses_are_its_own_fault(value):
    rows = logits([0.5] * 4)
    rows[2, 1] = value
    assert refused(added(0, 0, 0), rows, error=ExportError) == (
        "head 'kind': the network itself answers 1 of 9 values that are not finite at batch 3, the first in row 2: an "
        "answer is made of numbers (a division by zero, or a logarithm or root of nothing, in forward?)"
    )


def test_a_graph_that_does_not_run_says_so_in_one_line():
    data = written(helper.make_node("Reshape", ["x", "two"], ["kind"]), two=np.array([2, 3]))
    message = refused(data, logits([0.5] * 4))
    assert message.startswith("graph graphs/fused.onnx (onnxruntime on cpu) fails at batch 1: [ONNXRuntimeError]")
    assert message.endswith("(a Python number of a shape, a reshape to a fixed size)?")
    assert "\n" not in message


# --- neighbours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "little", "way_out"),
    [
        ("fp32", 8e-5, cases.NEIGHBOURS),
        ("int8", 0.1, "; keep the head in fp32 (--keep-fp32 kind), or leave --precision int8 out"),
    ],
)
def test_a_row_alone_is_the_row_in_the_batch(precision, little, way_out):
    """Each within the tolerance of eager, to its two sides; they are too far from each other."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        helper.make_node("Equal", ["rows", "one"], ["alone"]),
        helper.make_node("Where", ["alone", "more", "less"], ["touch"]),
        helper.make_node("Add", ["x", "touch"], ["kind"]),
    ]
    data = written(*nodes, one=np.array([1]), more=np.float32(little), less=np.float32(-little))
    message = refused(data, logits([0.5] * 64), precision)
    assert message.startswith(
        "head 'kind' of graph graphs/fused.onnx (onnxruntime on cpu) is not eager's: row alone against row in batch, "
        f"shape [64, 3]: error {2 * little:.2g}"
    )
    assert message.endswith(way_out)


# --- eager ----------------------------------------------------------------------------------------------------------


def test_eager_answers_every_head_and_leaves_the_rows_alone():
    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"kind": x.mul_(2)}

    rows = np.ones((2, 3), np.float32)
    found: dict[str, Any] = parity.eager(FusedGraph(Doubles(), SPEC), {"x": rows})
    assert found["kind"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert (rows == 1).all()


class Draws(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"kind": x + torch.rand(1)}


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.seen += len(x)
        return {"kind": x * self.seen}


@pytest.mark.parametrize("network", [Draws, Counts])
def test_a_network_that_answers_otherwise_each_time_is_refused(network):
    with pytest.raises(ExportError, match=r"head 'kind' answers the same rows differently each time \(by .*\)"):
        parity.require_repeatable(FusedGraph(network(), SPEC), {"x": logits([0.5, 0.25])})


def test_a_network_that_answers_the_same_is_not():
    parity.require_repeatable(FusedGraph(Echo(), SPEC), {"x": logits([0.5, np.nan])})
