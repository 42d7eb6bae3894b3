"""Heads' linear layers on one feature as one matrix product, and all per-row heads packed into one output.

A head of a hundred labels on 768 features is next to nothing; what costs is one operation, one copy off the device and
one Python call per head. So the first linear layers of all heads on a feature become one, whose weight is theirs one
below the other, and the packed output is that product itself wherever a head is nothing but its linear layer.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from polyhead.export.program import OWNERS, copied, is_call, outputs_of, rebuilt
from polyhead.serving.manifest import Packed

__all__ = ["PACKED_NODE", "Fused", "fuse"]

aten = torch.ops.aten
# A node's `meta` entry: it is the packed output.
PACKED_NODE = "polyhead_packed"


@dataclass(frozen=True)
class Fused:
    """A program that returns the heads sorted by name, then the packed output where there is one.

    Attributes:
        module: the program.
        packed: where each per-row head lies in the packed output; None where there is none.
        merged: the heads whose first linear layers became one, group by group.
    """

    module: fx.GraphModule
    packed: Packed | None
    merged: tuple[tuple[str, ...], ...]


def fuse(
    module: fx.GraphModule,
    heads: Sequence[str],
    row_heads: Collection[str],
    output: str,
    apart: Collection[str] = (),
    merge: bool = True,
) -> Fused:
    """Merge what can be merged, and pack.

    Args:
        module: a captured program, which is left as it is.
        heads: the names of what it returns, by position.
        row_heads: those of one output per row, which are packed.
        output: the name of the packed output.
        apart: heads whose layers are merged with no other's, because they stay in another precision.
        merge: whether to merge linear layers; the reference for what that gains.
    """
    module = copied(module)
    ends = dict(zip(heads, outputs_of(module.graph), strict=True))
    blocks = _merged(module, ends, apart) if merge else []
    packed = None
    if row_heads:
        ends = dict(zip(heads, outputs_of(module.graph), strict=True))
        packed = _pack(module.graph, ends, [name for name in heads if name in row_heads], output, blocks)
    module.graph.lint()
    module.graph.eliminate_dead_code()
    return Fused(rebuilt(module, module.graph), packed, tuple(block.heads for block in blocks))


@dataclass(frozen=True)
class _Block:
    """One merged layer: its product, cut into the outputs that are heads as they are, together, and the others."""

    direct: fx.Node | None
    outputs: tuple[str, ...]  # the heads in `direct`, by position
    heads: tuple[str, ...]


def _merged(module: fx.GraphModule, ends: Mapping[str, fx.Node], apart: Collection[str]) -> list[_Block]:
    groups: dict[tuple[fx.Node, torch.dtype], list[fx.Node]] = {}
    for node in module.graph.nodes:
        if is_call(node, aten.linear.default) and len(node.meta[OWNERS]) == 1:
            (head,) = node.meta[OWNERS]
            if head not in apart and all(part.op == "get_attr" for part in node.args[1:] if part is not None):
                groups.setdefault((node.args[0], node.meta["val"].dtype), []).append(node)
    blocks: list[_Block] = []
    for (source, _), layers in groups.items():
        if len({head for layer in layers for head in layer.meta[OWNERS]}) > 1:
            blocks.append(_merge(module, f"merged_{len(blocks)}", source, layers, ends))
    return blocks


def _merge(
    module: fx.GraphModule, name: str, source: fx.Node, layers: list[fx.Node], ends: Mapping[str, fx.Node]
) -> _Block:
    """One layer in place of several; those that are a head's whole output come first, side by side."""
    by_end = {end: head for head, end in ends.items() if end.meta["val"].dim() == 2}
    direct = sorted((layer for layer in layers if layer in by_end), key=lambda layer: by_end[layer])
    ordered = [*direct, *(layer for layer in layers if layer not in by_end)]
    weights = [_parameter(module, layer.args[1]) for layer in ordered]
    biases = [
        weight.new_zeros(len(weight))
        if len(layer.args) < 3 or layer.args[2] is None
        else _parameter(module, layer.args[2])
        for layer, weight in zip(ordered, weights, strict=True)
    ]
    graph = module.graph
    owners = frozenset().union(*(layer.meta[OWNERS] for layer in layers))
    # After the last of the layers' own weights: all of them are there before any layer runs.
    with graph.inserting_before(next(node for node in graph.nodes if node in layers)):
        weight = _attribute(module, graph, f"{name}_weight", torch.cat(weights), source)
        bias = _attribute(module, graph, f"{name}_bias", torch.cat(biases), source)
        product = _call(graph, aten.linear.default, (source, weight, bias), owners)
        width = sum(len(_parameter(module, layer.args[1])) for layer in direct)
        sizes = ([width] if direct else []) + [len(weight) for weight in weights[len(direct) :]]
        pieces = [product] if len(sizes) == 1 else _split(graph, product, sizes, owners)
        rest = dict(zip(ordered[len(direct) :], pieces[1:] if direct else pieces, strict=True))
        whole = _split(graph, pieces[0], [len(w) for w in weights[: len(direct)]], owners) if direct else []
        within = dict(zip(direct, whole, strict=True))
    for layer, piece in {**rest, **within}.items():
        piece.meta |= {"val": layer.meta["val"], OWNERS: layer.meta[OWNERS]}
        layer.replace_all_uses_with(piece)
        graph.erase_node(layer)
    names = tuple(by_end[layer] for layer in direct)
    every = tuple(sorted({head for layer in layers for head in layer.meta[OWNERS]}))
    return _Block(pieces[0] if direct else None, names, every)


def _pack(
    graph: fx.Graph, ends: Mapping[str, fx.Node], row_heads: Sequence[str], output: str, blocks: Sequence[_Block]
) -> Packed:
    """Side by side: what lies side by side already, then each other head; and every head is cut out of that again."""
    parts: list[tuple[fx.Node, tuple[str, ...]]] = []
    for block in blocks:
        if block.direct is not None and set(block.outputs) <= set(row_heads):
            parts.append((block.direct, block.outputs))
    placed = {name for _, names in parts for name in names}
    parts.extend((ends[name], (name,)) for name in row_heads if name not in placed)
    order = [name for _, names in parts for name in names]
    shapes = {name: tuple(int(size) for size in ends[name].meta["val"].shape[1:]) for name in order}
    widths = [prod(shapes[name]) for name in order]
    owners = frozenset(order)
    with graph.inserting_before(graph.output_node()):
        nodes = [node for node, _ in parts]
        packed = _call(graph, aten.cat.default, (nodes, 1), owners) if len(nodes) > 1 else nodes[0]
        if len(nodes) == 1:  # an output of its own, or the exporters would return one tensor under two names
            packed = _call(graph, aten.clone.default, (packed,), owners)
        packed.meta[PACKED_NODE] = True
        pieces = _split(graph, packed, widths, owners) if len(order) > 1 else [ends[order[0]]]
        returned = {**ends, **dict(zip(order, pieces, strict=True))}
    graph.output_node().args = ((*(returned[name] for name in ends), packed),)
    columns, start = {}, 0
    for name, width in zip(order, widths, strict=True):
        columns[name] = (start, start + width)
        start += width
    return Packed(output=output, columns=columns, shapes=shapes)


def _split(graph: fx.Graph, node: fx.Node, sizes: Sequence[int], owners: frozenset[str]) -> list[fx.Node]:
    """Along the last axis, as one operation."""
    whole = _call(graph, aten.split_with_sizes.default, (node, list(sizes), -1), owners)
    return [_call(graph, operator.getitem, (whole, index), owners) for index in range(len(sizes))]


def _call(graph: fx.Graph, target: Any, arguments: tuple[Any, ...], owners: frozenset[str]) -> fx.Node:
    node = graph.call_function(target, arguments)
    values = fx.map_arg(arguments, lambda source: source.meta["val"])
    node.meta |= {OWNERS: owners, "val": target(*values)}
    return node


def _attribute(module: nn.Module, graph: fx.Graph, name: str, value: Tensor, like: fx.Node) -> fx.Node:
    """A new weight; `like` is any node whose value is of the program's shape arithmetic."""
    module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
    node = graph.get_attr(name)
    node.meta |= {OWNERS: frozenset(), "val": like.meta["val"].fake_mode.from_tensor(value.detach())}
    return node


def _parameter(module: nn.Module, node: object) -> Tensor:
    assert isinstance(node, fx.Node)
    found: Tensor = operator.attrgetter(str(node.target))(module)
    return found
