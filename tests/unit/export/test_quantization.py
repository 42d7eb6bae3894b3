"""int8: close to fp32, and no row's answer depends on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from polyhead.export.errors import ExportError
from polyhead.export.quantization import dynamic, ends, owned, static
from polyhead.serving.golden import Array

RNG = np.random.default_rng(0)
FIRST = RNG.standard_normal((16, 32)).astype(np.float32)
SECOND = RNG.standard_normal((4, 32)).astype(np.float32)  # as Gemm with transB has it
BIAS = RNG.standard_normal(4).astype(np.float32)


def model(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, Array], shape: Sequence[Any], outputs: dict[str, Sequence[Any]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(s)) for name, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def layers(**gemm: Any) -> onnx.ModelProto:
    """A product, a bound, and a product with a bias: two heads, the first of them in the middle."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["middle"], name="trunk"),
        helper.make_node("Relu", ["middle"], ["features"], name="bound"),
        helper.make_node("Gemm", ["features", "second", "bias"], ["kind"], name="head", **({"transB": 1} | gemm)),
    ]
    weights = {"first": FIRST, "second": SECOND, "bias": BIAS}
    return model(nodes, weights, ["batch", 16], {"kind": ["batch", 4]})


def run(made: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def operations(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


def rows(count: int) -> Array:
    return np.random.default_rng(1).standard_normal((count, 16)).astype(np.float32)


# --- dynamic --------------------------------------------------------------------------------------------------------


def test_products_are_of_integers_and_close_to_fp32():
    made = layers()
    changed = dynamic(made)
    assert operations(changed).count("MatMulInteger") == 2
    assert not {"MatMul", "Gemm"} & set(operations(changed))
    x = rows(50)
    expected, actual = run(made, x), run(changed, x)
    assert 0 < np.abs(actual - expected).max() < 0.02 * np.abs(expected).max()
    large = {t.name: t.data_type for t in changed.graph.initializer if len(t.dims) == 2}
    assert set(large.values()) == {TensorProto.INT8}  # the weights of fp32 are gone
    assert [o.name for o in changed.graph.output] == ["kind"]


def test_the_model_itself_is_left_as_it_is():
    made = layers()
    before = made.SerializeToString(deterministic=True)
    dynamic(made)
    assert made.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("size", [1e6, 1e-6, 0.0])
def test_a_row_is_answered_the_same_whatever_stands_beside_it(size: float):
    changed = dynamic(layers())
    x = rows(8)
    beside = x.copy()
    beside[3] *= np.float32(size)
    others = [i for i in range(8) if i != 3]
    assert np.array_equal(run(changed, x)[others], run(changed, beside)[others])
    for row in range(8):
        assert np.array_equal(run(changed, x[row : row + 1])[0], run(changed, x)[row])


def test_onnx_runtimes_own_quantisation_lets_one_row_take_the_precision_of_all(tmp_path: Path):
    """Why this module is not two lines: its scale is that of the whole batch."""
    from onnxruntime import quantization

    made = layers()
    onnx.save(made, tmp_path / "fp32.onnx")
    quantization.quantize_dynamic(tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    theirs = onnx.load(tmp_path / "int8.onnx")
    x = rows(8)
    x[3] *= 1e6
    others = [i for i in range(8) if i != 3]
    wanted = run(made, x)[others]
    scale = np.abs(wanted).max()
    assert np.abs(run(theirs, x)[others] - wanted).max() > 0.5 * scale
    assert np.abs(run(dynamic(made), x)[others] - wanted).max() < 0.02 * scale


def test_a_row_of_zeros_is_answered_as_in_fp32():
    made = layers()
    np.testing.assert_array_equal(
        run(dynamic(made), np.zeros((2, 16), np.float32)), run(made, np.zeros((2, 16), np.float32))
    )


def test_each_token_has_a_scale_of_its_own():
    node = helper.make_node("MatMul", ["x", "first"], ["y"], name="layer")
    made = model([node], {"first": FIRST}, ["batch", "tokens", 16], {"y": ["batch", "tokens", 32]})
    changed = dynamic(made)
    x = RNG.standard_normal((2, 5, 16)).astype(np.float32)
    beside = x.copy()
    beside[0, 2] *= 1e6
    same = np.ones((2, 5), bool)
    same[0, 2] = False
    assert np.array_equal(run(changed, x)[same], run(changed, beside)[same])


def test_rows_that_two_products_take_are_quantised_once():
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["y"], name="one"),
        helper.make_node("MatMul", ["x", "other"], ["z"], name="two"),
    ]
    weights = {"first": FIRST, "other": -FIRST}
    changed = dynamic(model(nodes, weights, ["batch", 16], {"y": ["batch", 32], "z": ["batch", 32]}))
    assert operations(changed).count("Round") == 1
    assert operations(changed).count("MatMulInteger") == 2


@pytest.mark.parametrize(("keep", "left"), [({"head"}, "Gemm"), ({"trunk"}, "MatMul")])
def test_kept_nodes_stay_as_they_are(keep: set[str], left: str):
    changed = dynamic(layers(), keep)
    assert [op for op in operations(changed) if op in ("Gemm", "MatMul")] == [left]
    assert operations(changed).count("MatMulInteger") == 1


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}])
def test_a_product_that_is_scaled_stays_as_it_is(attributes: dict[str, float]):
    made = layers(**attributes)
    changed = dynamic(made)
    assert "Gemm" in operations(changed)
    x = rows(9)
    assert np.abs(run(changed, x) - run(made, x)).max() < 0.05 * np.abs(run(made, x)).max()


def test_a_network_without_a_product_is_refused():
    made = model([helper.make_node("Relu", ["x"], ["y"], name="bound")], {}, ["batch", 16], {"y": ["batch", 16]})
    with pytest.raises(ExportError, match=r"^int8: the network has no matrix product with a constant weight"):
        dynamic(made)
    with pytest.raises(ExportError, match="nothing can be quantised"):
        dynamic(layers(), {"trunk", "head"})


# --- static ---------------------------------------------------------------------------------------------------------


def convolutions() -> onnx.ModelProto:
    kernels = {name: RNG.standard_normal((4, c, 3, 3)).astype(np.float32) for name, c in (("one", 3), ("two", 4))}
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["middle"], name="trunk", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["middle"], ["features"], name="bound"),
        helper.make_node("Conv", ["features", "two"], ["ground"], name="head", pads=[1, 1, 1, 1]),
    ]
    return model(nodes, kernels, ["batch", 3, 6, 8], {"ground": ["batch", 4, 6, 8]})


IMAGES = np.random.default_rng(2).standard_normal((40, 3, 6, 8)).astype(np.float32)


def test_convolutions_are_calibrated_on_rows():
    made = convolutions()
    changed = static(made, {"x": IMAGES})
    assert "DequantizeLinear" in operations(changed)
    expected, actual = run(made, IMAGES), run(changed, IMAGES)
    assert 0 < np.abs(actual - expected).max() < 0.1 * np.abs(expected).max()
    narrow = static(made, {"x": IMAGES * 0.01})  # rows that say too little: what is larger is cut off
    assert np.abs(run(narrow, IMAGES) - expected).max() > 0.5 * np.abs(expected).max()


def test_kept_convolutions_stay_as_they_are():
    def weights(made: onnx.ModelProto) -> set[str]:
        return {t.name for t in made.graph.initializer if len(t.dims) == 4 and t.data_type == TensorProto.FLOAT}

    assert weights(static(convolutions(), {"x": IMAGES})) == set()
    assert weights(static(convolutions(), {"x": IMAGES}, {"head"})) == {"two"}


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ExportError, match=r"^int8: ONNX Runtime's quantiser refuses the graph: ") as caught:
        static(convolutions(), {"x": IMAGES[:, :2]})
    assert "\n" not in str(caught.value)


# --- whose node -----------------------------------------------------------------------------------------------------


def test_a_node_belongs_to_kept_heads_where_no_other_depends_on_it():
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["features"], name="trunk"),
        helper.make_node("Relu", ["features"], ["size"], name="size_only"),
        helper.make_node("Neg", ["features"], ["half"], name="both"),
        helper.make_node("Abs", ["half"], ["kind"], name="kind_only"),
        helper.make_node("Exp", ["half"], ["echo"], name="echo_only"),
    ]
    outputs = dict.fromkeys(("size", "kind", "echo"), ("batch", 32))
    made = model(nodes, {"first": FIRST}, ["batch", 16], outputs)
    places = {name: name for name in outputs}
    assert owned(made, places, {"kind"}) == {"kind_only"}
    assert owned(made, places, {"kind", "echo"}) == {"kind_only", "echo_only", "both"}
    assert owned(made, places, set(outputs)) == {node.name for node in nodes} - {"trunk"}
    assert owned(made, places, set()) == set()


def test_the_end_of_a_head_is_what_the_packed_output_joins():
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["merged"], name="merged"),
        helper.make_node("Relu", ["x"], ["own"], name="own"),
        helper.make_node("Concat", ["merged", "own"], ["packed"], name="pack", axis=1),
        helper.make_node("Split", ["packed", "sizes"], ["a", "b", "c"], name="cut", axis=1),
    ]
    weights = {"first": FIRST, "sizes": np.array([20, 12, 16])}
    outputs = {"a": ["batch", 20], "b": ["batch", 12], "c": ["batch", 16], "packed": ["batch", 48]}
    made = onnx.shape_inference.infer_shapes(model(nodes, weights, ["batch", 16], outputs))
    columns = {"a": (0, 20), "b": (20, 32), "c": (32, 48)}
    places = ends(made, ["a", "b", "c"], "packed", columns)
    assert places == {"a": "merged", "b": "merged", "c": "own"}
    assert owned(made, places, {"c"}) == {"own"}
    assert owned(made, places, {"a"}) == set()  # its product is another's too
    assert ends(made, ["a"], "none", {}) == {"a": "a"}
