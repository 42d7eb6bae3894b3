"""The one program that every graph is written from: a network captured by torch.export, as a graph of ATen operations.

Nothing of the network's Python is left in it, so a pass over its nodes (linear heads merged, heads cut off the trunk,
half precision) works on any network, and what one format is written from is what the others are written from.
"""

from __future__ import annotations

import io
import operator
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.quiet import quiet
from polyhead.export.recurrence import whole_sequences
from polyhead.models.arrays import ArraySpec

__all__ = [
    "BATCH",
    "OWNERS",
    "capture",
    "copied",
    "dimensions",
    "exported",
    "is_call",
    "outputs_of",
    "rebuilt",
    "symbolic",
]

aten = torch.ops.aten
BATCH = "batch"
# A node's `meta` entry: the heads whose outputs depend on it. Two or more: it belongs to the trunk.
OWNERS = "polyhead_owners"

# What says something about a tensor and computes nothing.
ASSERTIONS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.msg,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}
# Where a node came from: lines and paths of the machine that exports, which would travel inside .pt2 files.
NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")
CONVERSIONS = {aten.to.dtype, aten._to_copy.default, aten.to.dtype_layout}


def capture(graph: FusedGraph, example: Sequence[Tensor]) -> fx.GraphModule:
    """A network as ATen operations, every free dimension symbolic.

    Args:
        graph: the network behind the spec's inputs and heads.
        example: inputs of two rows or more; free dimensions longer than one, and of differing lengths.

    Returns:
        A module that takes the arrays by position and returns the heads' outputs, sorted by name. Each node's
        `meta[OWNERS]` names the heads that depend on it.

    Raises:
        ExportError: torch.export refuses the network, or its forward changes its own buffers.
    """
    _requires(example)
    program = exported(graph, example, dimensions(graph.arrays.values()))
    # Without operations in place: a pass may then take any node for a value. Nothing is taken apart (the empty table).
    with quiet(), whole_sequences():
        program = program.run_decompositions({})
    changed = [*program.graph_signature.buffers_to_mutate.values()]
    if changed:
        raise ExportError(
            f"the network's forward changes its buffer {changed[0]!r}: an exported graph keeps no state between "
            "requests (is a BatchNorm in training mode?)"
        )
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    module.graph.set_codegen(fx.graph.CodeGen())  # tensors in, a tuple out: no nesting
    _clean(module.graph)
    names = dict(zip(graph.spec.head_names, outputs_of(module.graph), strict=True))
    _own(module.graph, names)
    return rebuilt(module, module.graph)


def exported(module: nn.Module, example: Sequence[Tensor], shapes: tuple[dict[int, Any], ...]) -> ExportedProgram:
    """torch.export of a module that takes tensors by position.

    Args:
        module: a program, or the network behind its spec.
        example: a tensor for each input.
        shapes: of each input, the symbolic dimensions by axis; see `dimensions` and `symbolic`.

    Raises:
        ExportError: with the reason.
    """
    shown = io.StringIO()  # where it refuses, it prints the whole graph before it raises
    try:
        with quiet(), whole_sequences(), redirect_stdout(shown), redirect_stderr(shown):
            nested = (shapes,) if isinstance(module, FusedGraph) else shapes  # its forward takes *inputs
            program = torch.export.export(module, tuple(example), dynamic_shapes=nested, strict=False)
    except Exception as error:
        raise ExportError(f"torch.export refuses the network: {_reason(error)}") from error
    sys.stderr.write(shown.getvalue())
    return program


def dimensions(arrays: Iterable[ArraySpec]) -> tuple[dict[int, Dim], ...]:
    """The symbolic dimensions of each array: the batch, and the free ones by their names."""
    by_name = {BATCH: Dim(BATCH, min=1)}
    found = []
    for array in arrays:
        for name in array.free:
            low, high = array.lengths[name]
            identifier = name.replace("-", "_x2d_")  # torch.export takes no other names
            by_name.setdefault(name, Dim(identifier, min=low, max=high))
        found.append({axis: by_name[d] for axis, d in enumerate((BATCH, *array.shape)) if isinstance(d, str)})
    return tuple(found)


def symbolic(values: Iterable[Tensor]) -> tuple[dict[int, Any], ...]:
    """The symbolic dimensions of tensors inside a program; torch.export finds what they have in common."""
    return tuple(
        {axis: Dim.AUTO for axis, size in enumerate(value.shape) if not isinstance(size, int)} for value in values
    )


def _requires(example: Sequence[Tensor]) -> None:
    rows = {len(tensor) for tensor in example}
    if len(rows) != 1 or min(rows) < 2:
        raise ExportError(f"an export needs an example of two rows or more, got {sorted(rows)}")


def _reason(error: Exception) -> str:
    """The line of torch.export's message that says what is wrong, and where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    where = [line for line in lines if line.startswith("File ") and "site-packages" not in line]
    suggested = [lines[i + 1] for i, line in enumerate(lines[:-1]) if line.startswith("Suggested fixes")]
    bounds = [line.removeprefix("- ") for line in lines if "Not all values of" in line]
    return "; ".join([lines[0][:400], *bounds[:1], *suggested[:1], *where[-1:]])


def outputs_of(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """The nodes that a graph returns, by position."""
    (nodes,) = graph.output_node().args
    return tuple(nodes)  # type: ignore[arg-type]


def is_call(node: object, *targets: object) -> bool:
    """Whether a node calls one of these operations."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def _clean(graph: fx.Graph) -> None:
    """Take out what computes nothing: assertions, conversions to the type a tensor has, copies."""
    for node in list(graph.nodes):
        for note in NOTES:
            node.meta.pop(note, None)
        # The last writes a network's change of its own input back to whoever gave it.
        if is_call(node, *ASSERTIONS, aten.copy_.default):
            graph.erase_node(node)
        elif is_call(node, aten.clone.default) or (is_call(node, *CONVERSIONS) and _same_type(node)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()


def _same_type(node: fx.Node) -> bool:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before, after = source.meta.get("val"), node.meta.get("val")
    return (
        isinstance(before, Tensor)
        and isinstance(after, Tensor)
        and before.dtype == after.dtype
        and before.device == after.device
        and "memory_format" not in node.kwargs
    )


def _own(graph: fx.Graph, heads: Mapping[str, fx.Node]) -> None:
    """Write to every node which heads depend on it."""
    for node in graph.nodes:
        node.meta[OWNERS] = frozenset()
    for name, node in heads.items():
        node.meta[OWNERS] |= {name}
    for node in reversed(graph.nodes):
        if node.op != "output":
            for source in node.all_input_nodes:
                source.meta[OWNERS] |= node.meta[OWNERS]
    for node in graph.nodes:
        if node.target is operator.getitem:  # one of several results belongs where the operation does
            node.meta[OWNERS] = node.args[0].meta[OWNERS]


def rebuilt(module: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A module of a graph with the attributes that the graph uses, and no others."""
    attributes = {
        node.target: operator.attrgetter(node.target)(module) for node in graph.nodes if node.op == "get_attr"
    }
    return fx.GraphModule(attributes, graph, class_name="Program")


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """The same program with a graph of its own; it shares the weights."""
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(module.graph, values)
    graph.output(result)
    return rebuilt(module, graph)
