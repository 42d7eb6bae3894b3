"""Where a graph that the gate refused begins to differ: the first operation whose result is not the reference's.

Three programs stand between a network and what a runtime computes: what torch.export captured, what a precision made of
it, and what a format's writer made of that. Each is compared with the one before, operation by operation, on the rows
that the gate ran.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from polyhead.export import cases, torchscript
from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.program import copied, rebuilt
from polyhead.export.quiet import quiet
from polyhead.export.weights import inline
from polyhead.serving.golden import Array, Tolerance
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import base

__all__ = ["Stages", "locate"]

ONNX_MOST = 2_000_000_000  # bytes of a graph that is loaded again with all its results as outputs


@dataclass(frozen=True)
class Stages:
    """The programs that a graph was made through.

    Attributes:
        captured: in fp32, with heads merged and packed.
        module: the same in the graph's precision.
        program: `module` as the format's writer got it.
    """

    captured: fx.GraphModule
    module: fx.GraphModule
    program: ExportedProgram | None


def locate(
    entry: Graph,
    files: Mapping[str, bytes],
    stages: Stages,
    graph: FusedGraph,
    samples: Sequence[Mapping[str, Array]],
) -> str:
    """The first operation that diverges, in words; empty where every operation agrees on all rows.

    Args:
        entry: the refused graph.
        files: its content, by name.
        stages: what it was made through.
        graph: the eager network.
        samples: rows, as the gate has them.
    """
    for case in cases.shapes(graph.spec, samples):
        inputs = [torch.from_numpy(array.copy()) for array in case.rows.values()]
        try:
            found = (
                _capture(graph, stages, inputs, entry.tolerance)
                or _precision(entry, stages, inputs)
                or _writing(entry, files, stages, inputs)
            )
        except Exception as error:  # noqa: BLE001 - whatever a broken graph raises: the gate's own words come first
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return f"; operation by operation it cannot be run at {case.name}: {lines[0]}"
        if found:
            return f"; the first operation that diverges, at {case.name}: {found}"
    return ""


def _capture(graph: FusedGraph, stages: Stages, inputs: Sequence[Tensor], tolerance: Tolerance) -> str:
    """Eager against what was captured: they are one operation each here, for Python has no operations to compare."""
    with torch.inference_mode():
        wanted, found = graph(*inputs), stages.captured(*inputs)
    for head, expected, actual in zip(graph.spec.head_names, wanted, found, strict=False):
        if _differs(actual.numpy(), expected.numpy(), tolerance):
            return (
                f"what torch.export captured of head {head!r} is already not the network: "
                "its forward depends on values or sizes in Python"
            )
    return ""


def _precision(entry: Graph, stages: Stages, inputs: Sequence[Tensor]) -> str:
    if stages.module is stages.captured:
        return ""
    reference = _results(stages.captured, inputs)
    for node, value in _walk(stages.module, inputs):
        if node.name in reference and _differs(_array(value), reference[node.name], entry.tolerance):
            return f"{_words(node)}, in {entry.precision}: {_figures(_array(value), reference[node.name])}"
    return ""


def _writing(entry: Graph, files: Mapping[str, bytes], stages: Stages, inputs: Sequence[Tensor]) -> str:
    if entry.format == "torchscript":
        return _bisected(entry, stages.module, inputs)
    assert stages.program is not None
    with quiet():
        module = stages.program.run_decompositions({}).module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    if entry.format == "onnx":
        return _by_name(entry, module, inputs, _onnx_results(entry, files, inputs))
    with quiet():
        loaded = torch.export.load(io.BytesIO(files[entry.file])).module(check_guards=False)
    assert isinstance(loaded, fx.GraphModule)
    return _by_name(entry, module, inputs, _results(loaded, inputs))


def _by_name(entry: Graph, module: fx.GraphModule, inputs: Sequence[Tensor], found: Mapping[str, Array]) -> str:
    """The first of a program's operations whose result has another value under its name."""
    for node, value in _walk(module, inputs):
        if node.name in found and _differs(found[node.name], _array(value), entry.tolerance):
            return f"{_words(node)}, in {entry.file}: {_figures(found[node.name], _array(value))}"
    return ""


def _bisected(entry: Graph, module: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    """TorchScript keeps no names: programs cut off after an operation are written anew, and the middle one tried."""
    steps = [(node, _array(value)) for node, value in _walk(module, inputs) if isinstance(value, Tensor)]
    low, high = 0, len(steps) - 1
    if not steps or _same_script(module, *steps[high], inputs, entry.tolerance):
        return ""
    while low < high:
        middle = (low + high) // 2
        if _same_script(module, *steps[middle], inputs, entry.tolerance):
            low = middle + 1
        else:
            high = middle
    return f"{_words(steps[low][0])}, in {entry.file}"


def _same_script(
    module: fx.GraphModule, node: fx.Node, expected: Array, inputs: Sequence[Tensor], tolerance: Tolerance
) -> bool:
    cut = copied(module)
    end = next(other for other in cut.graph.nodes if other.name == node.name)
    cut.graph.output_node().args = ((end,),)
    cut.graph.eliminate_dead_code()
    try:
        written = io.BytesIO(torchscript.write(rebuilt(cut, cut.graph)))
        with quiet(), torch.inference_mode():
            (found,) = torch.jit.load(written)(*inputs)  # type: ignore[no-untyped-call]
    except (ExportError, RuntimeError):
        return False
    return not _differs(_array(found), expected, tolerance)


def _onnx_results(entry: Graph, files: Mapping[str, bytes], inputs: Sequence[Tensor]) -> dict[str, Array]:
    """Every operation's result in ONNX Runtime, by name, its optimisations as they are when it serves."""
    model = onnx.load_from_string(files[entry.file])
    if entry.weights is not None:
        inline(model, files[entry.weights])
    if model.ByteSize() > ONNX_MOST:
        return {}
    known = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    whole = entry.model_copy(update={"outputs": (*entry.outputs, *names), "weights": None})
    runtime = base.load("onnxruntime", whole, {entry.file: model.SerializeToString()}, "cpu", torch.get_num_threads())
    arrays = runtime.run([tensor.numpy() for tensor in inputs], whole.outputs)
    return dict(zip(whole.outputs, arrays, strict=True))


class _Walk(fx.Interpreter):
    """Runs a program and hands every result to somebody."""

    def __init__(self, module: fx.GraphModule, seen: Callable[[fx.Node, Any], None]) -> None:
        super().__init__(module)
        self.seen = seen

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function":
            self.seen(n, result)
        return result


def _walk(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Iterator[tuple[fx.Node, Any]]:
    """Every operation with its result, in order; those that are tensors of floating point."""
    steps: list[tuple[fx.Node, Any]] = []
    with torch.inference_mode():
        _Walk(module, lambda node, value: steps.append((node, value))).run(*inputs)
    return iter([(n, v) for n, v in steps if isinstance(v, Tensor) and v.is_floating_point()])


def _results(module: fx.GraphModule, inputs: Sequence[Tensor]) -> dict[str, Array]:
    return {node.name: _array(value) for node, value in _walk(module, inputs)}


def _array(value: Tensor) -> Array:
    array: Array = value.detach().to(torch.float32).numpy()
    return array


def _differs(actual: Array, expected: Array, tolerance: Tolerance) -> bool:
    if actual.shape != expected.shape:
        return True
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(actual)):
        return True
    scale = float(np.abs(expected[finite]).max(initial=0.0))
    error = float(np.abs(actual[finite].astype(np.float64) - expected[finite]).max(initial=0.0))
    return error > tolerance.atol + tolerance.rtol * scale


def _words(node: fx.Node) -> str:
    return f"{node.name!r} ({str(node.target).removeprefix('aten.')})"


def _figures(actual: Array, expected: Array) -> str:
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)}, wanted {list(expected.shape)}"
    if not np.isfinite(actual).all():
        return f"{int((~np.isfinite(actual)).sum())} of {actual.size} values are not finite"
    return f"error {np.abs(actual - expected).max():.3g} where values reach {np.abs(expected).max():.3g}"
