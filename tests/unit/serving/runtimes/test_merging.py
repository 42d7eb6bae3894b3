"""Linear layers of several heads as one: the same numbers by one matrix product; what is not linear stays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from polyhead.serving.runtimes.merging import Block, merge

X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def graph(*nodes: onnx.NodeProto, widths: dict[str, int]) -> GraphProto:
    """Linear layers on four numbers; `widths` are those of their weights, by the layer's name."""
    generator = np.random.default_rng(1)
    tensors = []
    for name, width in widths.items():
        tensors.append(numpy_helper.from_array(generator.standard_normal((width, 4), np.float32), f"{name}.weight"))
        tensors.append(numpy_helper.from_array(generator.standard_normal(width, np.float32), f"{name}.bias"))
    ends = {output for node in nodes for output in node.output} - {name for node in nodes for name in node.input}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sorted(ends)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])]
    return helper.make_graph(nodes, "graph", inputs, outputs, tensors)


def linear(name: str, source: str = "x", **attributes: float) -> onnx.NodeProto:
    given = {"transB": 1, **attributes}
    return helper.make_node("Gemm", [source, f"{name}.weight", f"{name}.bias"], [name], **given)


def run(made: GraphProto, names: list[str]) -> dict[str, np.ndarray]:
    del made.output[:]
    made.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"x": X}), strict=True))


def kinds(made: GraphProto) -> Counter[str]:
    return Counter(node.op_type for node in made.node)


def test_layers_that_nothing_takes_lie_side_by_side():
    made = graph(linear("a"), linear("b"), linear("c"), widths={"a": 3, "b": 1, "c": 2})
    before = run(made, ["a", "b", "c"])
    (block,) = merge(made, ["a", "b", "c"])
    assert block == Block("merged/0", ("a", "b", "c"))
    assert kinds(made) == {"Concat": 2, "Gemm": 1}
    found = run(made, [block.name])[block.name]
    np.testing.assert_allclose(found, np.concatenate([before[name] for name in block.outputs], 1), rtol=1e-6)


def test_layers_that_are_taken_are_cut_out():
    nodes = [linear("hidden"), helper.make_node("Relu", ["hidden"], ["relu"]), linear("a"), linear("b")]
    made = graph(*nodes, widths={"hidden": 6, "a": 3, "b": 2})
    before = run(made, ["relu", "a", "b"])
    (block,) = merge(made, ["a", "b", "relu"])
    assert block.outputs == ("a", "b")
    found = run(made, [block.name, "relu"])
    np.testing.assert_allclose(found[block.name], np.concatenate([before["a"], before["b"]], 1), rtol=1e-6)
    np.testing.assert_allclose(found["relu"], before["relu"], rtol=1e-6)


def test_layers_that_are_no_ends_are_merged_too():
    nodes = [linear("one"), linear("two"), *(helper.make_node("Relu", [n], [f"{n}.relu"]) for n in ("one", "two"))]
    made = graph(*nodes, widths={"one": 6, "two": 2})
    before = run(made, ["one.relu", "two.relu"])
    assert merge(made, []) == []
    assert kinds(made)["Gemm"] == 1
    for name, output in run(made, list(before)).items():
        np.testing.assert_allclose(output, before[name], rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        linear("b", alpha=2.0),
        linear("b", beta=0.5),
        helper.make_node("Gemm", ["x", "b.weight"], ["b"], transB=1),  # no bias
        helper.make_node("Gemm", ["x", "computed", "b.bias"], ["b"], transB=1),
        linear("b", source="relu"),
    ],
    ids=["alpha", "beta", "bias", "computed weight", "another feature"],
)
def test_other_layers_are_left_alone(other: onnx.NodeProto):
    nodes = [
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("Neg", ["b.weight"], ["computed"]),
        linear("a"),
        other,
    ]
    made = graph(*nodes, widths={"a": 3, "b": 2})
    before = [node.SerializeToString() for node in made.node]
    assert merge(made, ["a", "b"]) == []
    assert [node.SerializeToString() for node in made.node] == before


def test_layers_before_the_first_that_may_be_merged_stay():
    made = graph(linear("trunk"), linear("a"), linear("b"), widths={"trunk": 4, "a": 3, "b": 2})
    before = run(made, ["trunk"])
    (block,) = merge(made, ["a", "b"], first=1)
    assert block.outputs == ("a", "b")
    assert kinds(made)["Gemm"] == 2
    np.testing.assert_array_equal(run(made, ["trunk"])["trunk"], before["trunk"])


def test_onnx_runtime_puts_the_weights_together_once_and_for_all(tmp_path):
    made = graph(linear("a"), linear("b"), widths={"a": 3, "b": 2})
    (block,) = merge(made, ["a", "b"])
    del made.output[:]
    made.output.append(helper.make_tensor_value_info(block.name, TensorProto.FLOAT, None))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["Gemm"]
