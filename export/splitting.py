"""The program of trunk and heads as programs of their own: one for the trunk, one for each head.

An operation that two heads or more depend on is the trunk's, one that a single head depends on is that head's, whatever
classes the network is made of. What heads take of the trunk are its features.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import SymInt, Tensor, fx, ops
from torch.fx.experimental.symbolic_shapes import statically_known_true

from polyhead.export.errors import ExportError
from polyhead.export.program import OWNERS, is_call, outputs_of, rebuilt

__all__ = ["Piece", "Split", "Unsplit", "split"]


class Unsplit(ExportError):
    """Trunk and heads cannot be told apart; the message says why."""


@dataclass(frozen=True)
class Piece:
    """A program of one part.

    Attributes:
        module: takes `inputs` by position and returns `outputs`.
        inputs, outputs: arrays of the spec, features of the trunk, a head, by name; each as the symbolic tensor that it
            is in the whole program.
    """

    module: fx.GraphModule
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Split:
    """The trunk, and each head by name."""

    trunk: Piece
    heads: Mapping[str, Piece]


def split(module: fx.GraphModule, arrays: Sequence[str], heads: Sequence[str]) -> Split:
    """Cut a captured program between trunk and heads.

    Args:
        module: captured, nothing merged; it is left as it is.
        arrays: the names of what it takes, by position.
        heads: the names of what it returns, by position.

    Raises:
        Unsplit: there is one head only, the heads share nothing, or what they share has no row for each row.
    """
    if len(heads) < 2:
        raise Unsplit("it has one head")
    nodes = list(module.graph.nodes)
    ends = dict(zip(heads, outputs_of(module.graph), strict=True))
    names = dict(zip((node for node in nodes if node.op == "placeholder"), arrays, strict=True))
    features = _features(nodes, ends, names)
    names |= {node: _name(node, names) for node in features}
    trunk_nodes = [node for node in nodes if node.op != "output" and len(node.meta[OWNERS]) > 1]
    trunk = _piece(module, trunk_nodes, [n for n in names if n.op == "placeholder"], features, names)
    if not any(node.op == "call_function" and isinstance(node.meta.get("val"), Tensor) for node in trunk_nodes):
        raise Unsplit("its heads share no operation")
    if not features:
        raise Unsplit("its heads share no result that depends on a row")
    pieces = {}
    for head, end in ends.items():
        own = [node for node in nodes if node.meta.get(OWNERS) == {head}]
        # Features first: a length that both have is asked of them, so that the arrays are not needed.
        taken = [*features, *(node for node in names if node.op == "placeholder")]
        pieces[head] = _piece(module, own, taken, [end], names, {end: head})
    return Split(trunk, pieces)


def _features(nodes: Sequence[fx.Node], ends: Mapping[str, fx.Node], arrays: Mapping[fx.Node, str]) -> list[fx.Node]:
    """What heads take of the trunk, in the program's order."""
    last = set(ends.values())
    rows = next(iter(arrays)).meta["val"].shape[0]
    found = []
    for node in nodes:
        if node.op != "call_function" or len(node.meta[OWNERS]) < 2:
            continue
        if node not in last and all(user.op == "output" or len(user.meta[OWNERS]) > 1 for user in node.users):
            continue
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            continue  # a length, which every head can ask its features for; several tensors, which getitem takes apart
        if value.dim() == 0 or not statically_known_true(value.shape[0] == rows):
            if _constant(node):
                continue
            raise Unsplit(f"its heads share {node.name!r} of shape {list(value.shape)}, which has no row for each row")
        found.append(node)
    return found


def _constant(node: fx.Node) -> bool:
    """Whether a tensor depends on weights and lengths alone, so that each head may compute it again."""
    if isinstance(node.meta.get("val"), SymInt):
        return True
    return node.op != "placeholder" and all(_constant(source) for source in node.all_input_nodes)


def _name(node: fx.Node, arrays: Mapping[fx.Node, str]) -> str:
    """As the program calls it, unless an array has that name."""
    return f"{node.name}_feature" if node.name in arrays.values() else node.name


def _piece(
    module: fx.GraphModule,
    own: Sequence[fx.Node],
    inputs: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    names: Mapping[fx.Node, str],
    renamed: Mapping[fx.Node, str] | None = None,
) -> Piece:
    """A program of some of the nodes; what they need of the others beyond the inputs is computed again."""
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        values[node] = graph.placeholder(names[node])
        values[node].meta |= node.meta

    def copy(node: fx.Node) -> fx.Node:
        if node not in values:
            if node.op == "placeholder":
                raise Unsplit(f"a head needs the input {names[node]!r} to compute {node.name!r}")
            length = _length(graph, node, inputs, values)
            values[node] = graph.node_copy(node, copy) if length is None else length
        return values[node]

    for node in own:
        if node.op != "placeholder" and isinstance(node.meta.get("val"), Tensor):  # lengths where they are needed
            copy(node)
    graph.output(tuple(copy(node) for node in outputs))
    graph.eliminate_dead_code()
    graph.lint()
    used = [node for node in inputs if values[node].users]
    for node in inputs:
        if node not in used:
            graph.erase_node(values[node])
    returned = {(renamed or names)[node]: node.meta["val"] for node in outputs}
    return Piece(rebuilt(module, graph), {names[node]: node.meta["val"] for node in used}, returned)


def _length(
    graph: fx.Graph, node: fx.Node, inputs: Sequence[fx.Node], values: Mapping[fx.Node, fx.Node]
) -> fx.Node | None:
    """A symbolic length as one of the inputs has it; None where it is a tensor, or no input has this length."""
    value = node.meta.get("val")
    if not isinstance(value, SymInt) or is_call(node, operator.getitem):
        return None
    for source in inputs:
        for axis, size in enumerate(source.meta["val"].shape):
            if statically_known_true(size == value):
                found = graph.call_function(ops.aten.sym_size.int, (values[source], axis))
                found.meta |= {"val": value, OWNERS: node.meta[OWNERS]}
                return found
    return None
