"""Linear layers of several heads on one feature as one, in an ONNX graph: one matrix product costs less than many.

No weight is touched: the graph says that the weights lie one below the other, and ONNX Runtime puts them so when it
loads the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["Block", "merge"]


@dataclass(frozen=True)
class Block:
    """What lies side by side in one tensor `[batch, total]`.

    Attributes:
        name: of the tensor.
        outputs: each one's name, which no tensor has any more.
    """

    name: str
    outputs: tuple[str, ...]


def merge(graph: GraphProto, ends: Collection[str], first: int = 0) -> list[Block]:
    """Merge in place.

    Args:
        graph: its nodes in order.
        ends: tensors `[batch, values]` that nothing in the graph takes. Where such are products of a merged layer, they
            stay side by side.
        first: of the nodes that may be merged, by position: those of the trunk stay as they are.

    Returns:
        One entry for each merged layer that has any of the ends.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    groups: dict[tuple[str, int], list[NodeProto]] = {}
    for node in graph.node[first:]:
        if _is_linear(node, weights):
            groups.setdefault((node.input[0], weights[node.input[1]].data_type), []).append(node)
    blocks: list[Block] = []
    for layers in groups.values():
        if len(layers) > 1:
            blocks.append(_merged(graph, f"merged/{len(blocks)}", layers, weights, ends))
    return [block for block in blocks if block.outputs]


def _merged(
    graph: GraphProto,
    name: str,
    layers: Sequence[NodeProto],
    weights: Mapping[str, TensorProto],
    ends: Collection[str],
) -> Block:
    """One layer in place of several: the ends first and together, each other cut out of the product."""
    ordered = sorted(layers, key=lambda node: node.output[0] not in ends)
    direct = tuple(node.output[0] for node in ordered if node.output[0] in ends)
    others = [node.output[0] for node in ordered[len(direct) :]]
    sizes = [weights[node.input[1]].dims[0] for node in ordered]
    made = [
        helper.make_node("Concat", [node.input[1] for node in ordered], [f"{name}/weight"], axis=0),
        helper.make_node("Concat", [node.input[2] for node in ordered], [f"{name}/bias"], axis=0),
        helper.make_node("Gemm", [layers[0].input[0], f"{name}/weight", f"{name}/bias"], [name], transB=1),
    ]
    if others:
        together = [sum(sizes[: len(direct)])] if direct else []
        cut = np.array([*together, *sizes[len(direct) :]], np.int64)
        graph.initializer.append(numpy_helper.from_array(cut, f"{name}/sizes"))
        parts = [f"{name}/ends", *others] if direct else others
        made.append(helper.make_node("Split", [name, f"{name}/sizes"], parts, axis=1))
    _replace(graph, layers, made)
    return Block(f"{name}/ends" if others else name, direct)


def _is_linear(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    """A feature times a weight `[out, in]`, plus a bias `[out]`, both of them fixed."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | values
    if node.op_type != "Gemm" or node.domain or len(node.input) != 3 or node.input[0] in weights:
        return False
    weight, bias = (weights.get(name) for name in node.input[1:])
    if weight is None or bias is None or plain != {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}:
        return False
    return tuple(bias.dims) == (weight.dims[0],)


def _replace(graph: GraphProto, old: Sequence[NodeProto], new: Sequence[NodeProto]) -> None:
    """New nodes at the place of the first of the old ones."""
    nodes: list[NodeProto] = []
    gone = {node.output[0] for node in old}
    for node in graph.node:
        if node.output[0] == old[0].output[0]:
            nodes += new
        elif node.output[0] not in gone:
            nodes.append(node)
    copied = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copied)
