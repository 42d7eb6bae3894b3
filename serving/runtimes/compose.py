"""One ONNX graph out of several proven ones: the trunk with some of its heads, and what other heads need of it.

Nothing is computed here and no weight is touched: nodes are copied under names of their own, a head's inputs become the
trunk's outputs, and linear layers on one feature are merged. Tensors that lie in the shared file stay there, and equal
ones are held once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Packed
from polyhead.serving.runtimes.merging import merge

__all__ = ["PACKED", "Composed", "compose", "feature_output", "head_output"]

PACKED = "polyhead_packed"


@dataclass(frozen=True)
class Composed:
    """A graph of the trunk and some heads.

    Attributes:
        model: its large tensors in the file that the proven graphs share.
        inputs, outputs: names by position. Of the outputs: the packed one where there is one, the heads of one output
            per token or pixel, then features.
        packed: where each per-row head lies in the packed output; None where there is none.
    """

    model: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    packed: Packed | None


def head_output(head: str) -> str:
    """What a composed graph calls a head's output."""
    return f"heads.{head}"


def feature_output(feature: str) -> str:
    """What a composed graph calls a feature of the trunk."""
    return f"trunk.{feature}"


def compose(
    arrays: Sequence[str],
    trunk: ModelProto,
    heads: Mapping[str, ModelProto],
    shapes: Mapping[str, tuple[int, ...]],
    features: Collection[str],
) -> Composed:
    """Put heads behind a trunk, in one graph.

    Args:
        arrays: names of all that the model takes, by position.
        trunk: its graph.
        heads: the heads' graphs by name; their inputs are outputs of the trunk, and arrays.
        shapes: of the per-row heads among all heads, one row's shape by name. They are packed side by side.
        features: outputs of the trunk that the composed graph returns too.

    Raises:
        RuntimeUnavailable: the graphs are of different opsets, or hold functions.
    """
    graph = GraphProto(name="polyhead")
    found = [output.name for output in trunk.graph.output]
    known = {name: name for name in arrays} | {name: feature_output(name) for name in found}
    parts = _Parts(graph)
    parts.add(trunk, "trunk", known)
    own = len(graph.node)
    for head, model in heads.items():
        (output,) = (value.name for value in model.graph.output)
        # An output of the head may be called as an array is: what it takes is told first.
        taken = {value.name: known[value.name] for value in model.graph.input}
        parts.add(model, f"heads/{head}", {output: head_output(head)} | taken)
    used = set(_names_read(graph))
    graph.input.extend(parts.inputs[name] for name in arrays if name in used)
    rows = [head for head in heads if head in shapes]
    packed = _pack(graph, rows, shapes, own) if rows else None
    values = {head_output(head): model.graph.output[0] for head, model in heads.items() if head not in shapes}
    values |= {feature_output(value.name): value for value in trunk.graph.output if value.name in features}
    for name, value in values.items():
        copied = graph.output.add()
        copied.CopyFrom(value)
        copied.name = name
    model = ModelProto(ir_version=max(m.ir_version for m in (trunk, *heads.values())), graph=graph)
    model.opset_import.extend(_opsets([trunk, *heads.values()]))
    inputs = tuple(value.name for value in graph.input)
    return Composed(model.SerializeToString(), inputs, tuple(value.name for value in graph.output), packed)


class _Parts:
    """Graphs copied into one, each under its own prefix."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self._stored: dict[tuple[int, tuple[int, ...], str], str] = {}  # tensors in the file, by type, shape and place

    def add(self, model: ModelProto, prefix: str, known: Mapping[str, str]) -> None:
        """Copy a model's nodes and weights; names that are not known are its own."""
        names = dict(known)
        for value in model.graph.input:
            copied = onnx.ValueInfoProto()
            copied.CopyFrom(value)
            self.inputs.setdefault(value.name, copied)
        for tensor in model.graph.initializer:
            self._take(tensor, prefix, names)
        for node in model.graph.node:
            copied_node = self.graph.node.add()
            copied_node.CopyFrom(node)
            _rename(copied_node, prefix, names)

    def _take(self, tensor: TensorProto, prefix: str, names: dict[str, str]) -> None:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = ",".join(sorted(f"{entry.key}={entry.value}" for entry in tensor.external_data))
            key = (tensor.data_type, tuple(tensor.dims), place)
            if key in self._stored:
                names[tensor.name] = self._stored[key]
                return
            self._stored[key] = f"{prefix}/{tensor.name}"
        copied = self.graph.initializer.add()
        copied.CopyFrom(tensor)
        copied.name = names[tensor.name] = f"{prefix}/{tensor.name}"


def _rename(node: onnx.NodeProto, prefix: str, names: Mapping[str, str]) -> None:
    """Every name in a node and in the graphs of its attributes; no name stays none."""
    node.name = node.name and f"{prefix}/{node.name}"
    for values in (node.input, node.output):
        values[:] = [name and names.get(name, f"{prefix}/{name}") for name in values]
    for inner in _inner(node):
        for part in (*inner.input, *inner.output, *inner.initializer, *inner.value_info):
            part.name = names.get(part.name, f"{prefix}/{part.name}")
        for nested in inner.node:
            _rename(nested, prefix, names)


def _inner(node: onnx.NodeProto) -> Iterator[GraphProto]:
    """The graphs of a node's attributes: of a loop, of a branch."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _names_read(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for inner in _inner(node):
            yield from _names_read(inner)


def _pack(graph: GraphProto, heads: Sequence[str], shapes: Mapping[str, tuple[int, ...]], first: int) -> Packed:
    """Per-row heads side by side, as the graph's first output: what lies so already, then each other head."""
    flat = {head_output(head): head for head in heads if len(shapes[head]) == 1}
    blocks = merge(graph, flat.keys(), first)
    order = [flat[name] for block in blocks for name in block.outputs]
    parts = [block.name for block in blocks]
    for head in heads:
        if head in order:
            continue
        order.append(head)
        source = head_output(head)
        if source not in flat:
            graph.node.append(helper.make_node("Flatten", [source], [f"{source}/flat"], axis=1))
        parts.append(source if source in flat else f"{source}/flat")
    graph.node.append(helper.make_node("Concat", parts, [PACKED], name=PACKED, axis=1))
    columns, start = {}, 0
    for head in order:
        columns[head] = (start, start + prod(shapes[head]))
        start = columns[head][1]
    graph.output.append(helper.make_tensor_value_info(PACKED, TensorProto.FLOAT, ["batch", start]))
    return Packed(output=PACKED, columns=columns, shapes={head: shapes[head] for head in order})


def _opsets(models: Sequence[ModelProto]) -> list[onnx.OperatorSetIdProto]:
    """The operators' versions, which all graphs must agree on."""
    versions: dict[str, int] = {}
    for model in models:
        if model.functions:
            raise RuntimeUnavailable("a graph of trunk or heads holds functions: export the bundle again")
        for entry in model.opset_import:
            if versions.setdefault(entry.domain, entry.version) != entry.version:
                raise RuntimeUnavailable("the graphs of trunk and heads have different opsets: export the bundle again")
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]
