"""Graphs put together by hand: what they compute, and under which names, whatever each is called in its own graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.runtimes.compose import PACKED, compose

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def times(factor: float, source: str, target: str) -> onnx.ModelProto:
    """A graph whose weight and node are called alike in all graphs of this kind."""
    node = helper.make_node("Mul", [source, "weight"], [target], name="node")
    return model([node], [value(source, 2)], [value(target, 2)], {"weight": np.array([factor], np.float32)})


def run(composed, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(onnx.load_from_string(composed.model), full_check=True)
    session = onnxruntime.InferenceSession(composed.model, providers=["CPUExecutionProvider"])
    assert tuple(i.name for i in session.get_inputs()) == composed.inputs
    assert tuple(o.name for o in session.get_outputs()) == composed.outputs
    return dict(zip(composed.outputs, session.run(None, inputs), strict=True))


def test_like_names_of_several_graphs_stay_apart():
    heads = {"a": times(3, "mul", "out"), "b": times(5, "mul", "out")}
    composed = compose(["x"], times(2, "x", "mul"), heads, {"a": (2,), "b": (2,)}, ["mul"])
    assert composed.outputs == (PACKED, "trunk.mul")
    assert composed.packed is not None
    assert composed.packed.columns == {"a": (0, 2), "b": (2, 4)}
    found = run(composed, x=X)
    np.testing.assert_array_equal(found[PACKED], np.concatenate([X * 6, X * 10], 1))
    np.testing.assert_array_equal(found["trunk.mul"], X * 2)


def test_a_head_may_be_called_as_an_array_or_a_feature_is():
    heads = {"x": times(3, "mul", "x"), "mul": times(5, "mul", "out")}
    composed = compose(["x"], times(2, "x", "mul"), heads, {}, ["mul"])
    assert composed.outputs == ("heads.x", "heads.mul", "trunk.mul")
    found = run(composed, x=X)
    np.testing.assert_array_equal(found["heads.x"], X * 6)
    np.testing.assert_array_equal(found["heads.mul"], X * 10)


def test_heads_take_arrays_of_the_model_and_only_those_used_are_asked_for():
    nodes = [helper.make_node("Add", ["mul", "z"], ["sum"])]
    heads = {"sum": model(nodes, [value("mul", 2), value("z", 2)], [value("sum", 2)])}
    composed = compose(["z", "y", "x"], times(2, "x", "mul"), heads, {"sum": (2,)}, [])
    assert composed.inputs == ("z", "x")
    np.testing.assert_array_equal(run(composed, x=X, z=X)[PACKED], X * 3)


def test_per_row_heads_of_any_shape_are_packed():
    shape = numpy_helper.from_array(np.array([-1, 2, 1]), "shape")
    deep = model([helper.make_node("Reshape", ["mul", "shape"], ["deep"])], [value("mul", 2)], [value("deep", 2, 1)])
    deep.graph.initializer.append(shape)
    composed = compose(["x"], times(2, "x", "mul"), {"deep": deep}, {"deep": (2, 1)}, [])
    assert composed.packed is not None
    assert composed.packed.shapes == {"deep": (2, 1)}
    np.testing.assert_array_equal(run(composed, x=X)[PACKED], X * 2)


def test_branches_see_the_names_around_them():
    """A branch reads a feature, a weight and a value of its own head, all of them under new names."""
    then = helper.make_graph([helper.make_node("Mul", ["mul", "weight"], ["node"])], "then", [], [value("node", 2)])
    other = helper.make_graph([helper.make_node("Neg", ["twice"], ["node2"])], "else", [], [value("node2", 2)])
    nodes = [
        helper.make_node("Add", ["mul", "mul"], ["twice"]),
        helper.make_node("ReduceMax", ["mul"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "weight"], ["yes"]),
        helper.make_node("Squeeze", ["yes"], ["flag"]),
        helper.make_node("If", ["flag"], ["out"], then_branch=then, else_branch=other),
    ]
    head = model(nodes, [value("mul", 2)], [value("out", 2)], {"weight": np.array([7], np.float32)})
    composed = compose(["x"], times(2, "x", "mul"), {"a": head, "b": head}, {"a": (2,)}, [])
    for inputs, expected in ((X, X * 14), (X / 9, X / 9 * -4)):
        found = run(composed, x=inputs)
        np.testing.assert_allclose(found[PACKED], expected, rtol=1e-6)
        np.testing.assert_allclose(found["heads.b"], expected, rtol=1e-6)


def test_a_tensor_of_the_shared_file_is_held_once():
    def shared(source: str, target: str, offset: int) -> onnx.ModelProto:
        made = times(1, source, target)
        (tensor,) = made.graph.initializer
        onnx.external_data_helper.set_external_data(tensor, "weights.bin", offset, 4)
        return made

    heads = {"a": shared("mul", "a", 0), "b": shared("mul", "b", 64)}
    composed = compose(["x"], shared("x", "mul", 0), heads, {"a": (2,)}, [])
    graph = onnx.load_from_string(composed.model).graph
    assert [tensor.name for tensor in graph.initializer] == ["trunk/weight", "heads/b/weight"]
    assert [node.input[1] for node in graph.node if node.op_type == "Mul"] == [
        "trunk/weight",
        "trunk/weight",
        "heads/b/weight",
    ]


def test_graphs_of_other_opsets_are_refused():
    head = times(1, "mul", "a")
    head.opset_import[0].version = 19
    with pytest.raises(RuntimeUnavailable) as caught:
        compose(["x"], times(2, "x", "mul"), {"a": head}, {}, [])
    assert str(caught.value) == "the graphs of trunk and heads have different opsets: export the bundle again"


def test_graphs_with_functions_are_refused():
    head = times(1, "mul", "a")
    head.functions.add(name="own", domain="own")
    with pytest.raises(RuntimeUnavailable) as caught:
        compose(["x"], times(2, "x", "mul"), {"a": head}, {}, [])
    assert str(caught.value) == "a graph of trunk or heads holds functions: export the bundle again"
