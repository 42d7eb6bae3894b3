"""int8: ONNX graphs with integer products, for processors.

Dynamic, for texts and numbers: weights per output column, activations per row, while the graph runs. ONNX Runtime's own
dynamic quantisation has one scale for a whole batch, so that a request's answer depends on its neighbours, and one row
of large numbers takes every other row's precision away; here each row (of a text, each token) has its own.

Static, for images: scales of activations are measured on given rows at export (ONNX Runtime's calibration, QDQ form).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from polyhead.export.errors import ExportError
from polyhead.export.onnx import require_valid
from polyhead.serving.golden import Array

__all__ = ["dynamic", "ends", "owned", "static"]

LEVELS = 127  # of a symmetric int8 to each side of zero
LEAST = 1e-12  # a row of zeros has this scale
CALIBRATION_BATCH = 16


def dynamic(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Integer products with a scale per row.

    Args:
        model: fp32, its weights inside; it is left as it is.
        keep: nodes, by name, that stay as they are.

    Raises:
        ExportError: there is no product with a constant weight.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    rewriter = _Rows(weights)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        taken = node.name not in keep and _is_product(node, weights)
        nodes += rewriter.rewrite(node) if taken else [node]
    if not rewriter.constants:
        raise ExportError("int8: the network has no matrix product with a constant weight, so nothing can be quantised")
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *rewriter.constants])
    require_valid(changed)
    return changed


def _is_product(node: onnx.NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return False
    weight = weights[node.input[1]]
    plain = all(a.f == 1.0 for a in node.attribute if a.name in ("alpha", "beta"))
    straight = all(a.i == 0 for a in node.attribute if a.name == "transA")
    return weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2 and plain and straight


class _Rows:
    """Writes products anew; rows that several products take are quantised once."""

    def __init__(self, weights: Mapping[str, TensorProto]) -> None:
        self.weights = weights
        self.constants: list[TensorProto] = []
        self.rows: dict[str, tuple[str, str]] = {}  # by input: the integers, their scale

    def rewrite(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        source, weight, *bias = node.input
        nodes = [] if source in self.rows else self._quantise(source)
        integers, scale = self.rows[source]
        matrix, columns = self._weight(weight, any(a.name == "transB" and a.i for a in node.attribute))
        (result,) = node.output
        nodes += [
            _node("MatMulInteger", [integers, matrix], f"{result}_sums"),
            _node("Cast", [f"{result}_sums"], f"{result}_wide", to=TensorProto.FLOAT),
            _node("Mul", [f"{result}_wide", scale], f"{result}_rows"),
            _node("Mul", [f"{result}_rows", columns], f"{result}_product" if bias else result),
        ]
        return [*nodes, _node("Add", [f"{result}_product", bias[0]], result)] if bias else nodes

    def _quantise(self, source: str) -> list[onnx.NodeProto]:
        """`round(x / s)` with `s = max |x| / 127` of each row."""
        names = {part: f"{source}_{part}" for part in ("size", "most", "bound", "scale", "steps", "whole", "int8")}
        self.rows[source] = (names["int8"], names["scale"])
        return [
            _node("Abs", [source], names["size"]),
            _node("ReduceMax", [names["size"], self._constant("last_axis", np.array([-1]))], names["most"], keepdims=1),
            _node("Max", [names["most"], self._constant("least", np.float32(LEAST))], names["bound"]),
            _node("Div", [names["bound"], self._constant("levels", np.float32(LEVELS))], names["scale"]),
            _node("Div", [source, names["scale"]], names["steps"]),
            _node("Round", [names["steps"]], names["whole"]),
            _node("Cast", [names["whole"]], names["int8"], to=TensorProto.INT8),
        ]

    def _weight(self, name: str, transposed: bool) -> tuple[str, str]:
        """A weight as int8, and the scale of each of its columns."""
        array = numpy_helper.to_array(self.weights[name]).astype(np.float32)
        array = array.T if transposed else array
        scale = np.maximum(np.abs(array).max(axis=0), LEAST) / LEVELS
        integers = np.clip(np.rint(array / scale), -LEVELS, LEVELS).astype(np.int8)
        return self._constant(f"{name}_int8", integers), self._constant(f"{name}_scale", scale.astype(np.float32))

    def _constant(self, name: str, value: Array | np.float32) -> str:
        name = f"polyhead_int8_{name}"
        if all(tensor.name != name for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=f"int8_{output}", **attributes)


def static(model: onnx.ModelProto, rows: Mapping[str, Array], keep: Collection[str] = ()) -> onnx.ModelProto:
    """Convolutions and products in QDQ form, their scales measured on rows.

    Args:
        model: fp32, its weights inside, batch normalisation folded.
        rows: of every array, by name; their range of activations becomes the graph's.
        keep: nodes, by name, that stay as they are.

    Raises:
        ExportError: ONNX Runtime's quantiser refuses the graph.
    """
    from onnxruntime import quantization

    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Array]] = iter(
                {name: np.ascontiguousarray(array[start : start + CALIBRATION_BATCH]) for name, array in rows.items()}
                for start in range(0, len(next(iter(rows.values()))), CALIBRATION_BATCH)
            )

        def get_next(self) -> dict[str, Array] | None:
            return next(self.batches, None)

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it tells every choice it makes
    try:
        with tempfile.TemporaryDirectory() as folder:
            quantised = str(Path(folder, "int8.onnx"))
            quantization.quantize_static(
                model,
                quantised,
                Rows(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                nodes_to_exclude=list(keep),
            )
            made = onnx.load(quantised)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"int8: ONNX Runtime's quantiser refuses the graph: {lines[0]}") from error
    finally:
        logging.root.setLevel(level)
    require_valid(made)
    return made


def owned(model: onnx.ModelProto, ends: Mapping[str, str], heads: Collection[str]) -> set[str]:
    """The nodes that only these heads depend on, by name; what all heads depend on is the trunk, and not among them.

    Args:
        model: any.
        ends: of each head, the tensor that is its output before anything is packed.
        heads: some of them.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    reached: dict[str, set[str]] = {}
    for head, end in ends.items():
        pending, seen = [end], set()
        while pending:
            node = producers.get(pending.pop())
            if node is not None and node.name not in seen:
                seen.add(node.name)
                reached.setdefault(node.name, set()).add(head)
                pending.extend(node.input)
    every = set(ends) if len(ends) > 1 else set(ends) | {""}  # of a single head, nothing is the trunk
    return {name for name, owners in reached.items() if owners <= set(heads) and owners < every}


def ends(
    model: onnx.ModelProto, heads: Sequence[str], packed: str, columns: Mapping[str, tuple[int, int]]
) -> dict[str, str]:
    """Of each head, the tensor that is its output before anything is packed.

    The packed output joins them in the order of their columns; several heads that are one product are one tensor there.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    found = {head: head for head in heads}
    node = producers.get(packed)
    if node is None or node.op_type != "Concat":
        return found
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    start = 0
    for part in node.input:
        stop = start + shapes[part][1].dim_value
        found |= {head: part for head, (first, last) in columns.items() if start <= first and last <= stop}
        start = stop
    return found
