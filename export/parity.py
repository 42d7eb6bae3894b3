"""The gate: every head, eager against every graph, through the very runtimes that will serve.

A graph passes where, for each head and each batch size, values and decisions are eager's within tolerance; where row i
alone (of a text: without padding) is row i of the batch; where texts of one token and of the longest length pass too;
where nothing depends on what padding holds; and where the packed output is the heads' own outputs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from polyhead.export.errors import ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.models.arrays import ArraySpec, text_arrays
from polyhead.models.spec import HeadSpec
from polyhead.serving.bundle import Graph
from polyhead.serving.engine import unpack
from polyhead.serving.golden import Array, Tolerance, difference, fault, one_by_one, trimmed
from polyhead.serving.runtimes import base

__all__ = ["BATCHES", "FP32", "Parity", "check", "eager", "require"]

BATCHES = (1, 2, 3, 7, 64)
FP32 = Tolerance(atol=1e-5, rtol=1e-4)


@dataclass
class Parity:
    """What the gate saw of one graph on one runtime: the largest absolute difference by head, and by batch."""

    graph: str
    runtime: str
    device: str
    heads: dict[str, float] = field(default_factory=dict)
    batches: dict[str, dict[str, float]] = field(default_factory=dict)  # "batch 7", "row alone": by head

    @property
    def largest(self) -> float:
        """Over all heads and batches."""
        return max(self.heads.values(), default=0.0)

    def note(self, case: str, head: str, value: float) -> None:
        """Keep a difference."""
        self.batches.setdefault(case, {})[head] = value
        self.heads[head] = max(self.heads.get(head, 0.0), value)


def eager(graph: FusedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every head's output by eager PyTorch, the reference of everything.

    Raises:
        ExportError: the network does not run on so many rows, or returns other shapes.
    """
    outputs = graph.check({name: torch.from_numpy(array.copy()) for name, array in inputs.items()})
    return {name: output.numpy() for name, output in zip(graph.spec.head_names, outputs, strict=False)}


def check(entry: Graph, runtime: base.Runtime, graph: FusedGraph, inputs: Mapping[str, Array]) -> Parity:
    """Put one graph through the gate.

    Args:
        entry: the graph's manifest entry.
        runtime: the graph, loaded where it is to serve.
        graph: the eager reference.
        inputs: rows to run, repeated where there are fewer than the largest batch.

    Raises:
        ExportError: the network itself does not run on so many rows or tokens.
        ParityError: naming head, graph, runtime, batch and error.
    """
    parity = Parity(entry.id, runtime.name, runtime.device)
    tolerance = FP32.on(runtime.device)
    specs = graph.spec.heads
    for case, rows in _cases(graph, inputs):
        expected = eager(graph, rows)  # first: what the network itself cannot do is not the graph's fault
        actual = _run(entry, runtime, rows, case)
        require(parity, case, entry, specs, actual, expected, tolerance)
    together = _padded(graph, {name: np.ascontiguousarray(array[: BATCHES[-1]]) for name, array in inputs.items()})
    texts = any(array.role == "mask" for array in graph.arrays.values())
    hint = "; an answer may not depend on padding: the network must use attention_mask" if texts else ""
    batch = _run(entry, runtime, together, "all rows")
    alone = one_by_one(lambda row: _run(entry, runtime, row, "a row alone"), together, graph.arrays, batch)
    require(parity, "row alone against row in batch", entry, specs, alone, batch, tolerance, hint)
    if texts:
        scrambled = _run(entry, runtime, _other_padding(graph, together), "other padding")
        require(parity, "padding that holds other tokens", entry, specs, scrambled, batch, tolerance, hint)
    return parity


def _cases(graph: FusedGraph, inputs: Mapping[str, Array]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Rows to compare on: every batch size, and texts of the least and the greatest length."""
    for size in BATCHES:
        rows = {name: np.ascontiguousarray(array[np.arange(size) % len(array)]) for name, array in inputs.items()}
        yield f"batch {size}", trimmed(rows, graph.arrays)
    longest = {array.longest for array in graph.arrays.values() if array.longest is not None}
    for length in sorted({1, *longest}) if longest else ():
        yield f"{length} tokens", {name: _of_length(graph.arrays[name], a[:2], length) for name, a in inputs.items()}


def _of_length(spec: ArraySpec, rows: Array, length: int) -> Array:
    """Texts of exactly so many tokens, all valid, made of the ones that are there."""
    if spec.longest is None:
        return np.ascontiguousarray(rows)
    length = min(length, spec.longest)
    if spec.role == "mask":
        return np.ones((len(rows), length), dtype=rows.dtype)
    return np.ascontiguousarray(rows[:, np.arange(length) % rows.shape[1]])


def _padded(graph: FusedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The rows, some with padding: where no text of an input has any, every second one is cut to half its tokens."""
    changed = dict(inputs)
    for name, spec in graph.arrays.items():
        if spec.role == "ids":
            _, mask = text_arrays(graph.spec, spec.input)
            if inputs[mask].all():
                for array in (name, mask):
                    changed[array] = inputs[array].copy()
                    changed[array][1::2, inputs[array].shape[1] // 2 :] = 0
    return changed


def _other_padding(graph: FusedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The same rows, with token ids from other places where the mask says padding."""
    changed = dict(inputs)
    for name, spec in graph.arrays.items():
        if spec.role == "ids":
            _, mask = text_arrays(graph.spec, spec.input)
            changed[name] = np.where(inputs[mask] == 0, inputs[name].max(), inputs[name])
    return changed


def _run(entry: Graph, runtime: base.Runtime, rows: Mapping[str, Array], case: str) -> dict[str, Array]:
    """One forward pass for every output; the packed one must hold the others exactly."""
    try:
        found = runtime.run([rows[name] for name in entry.inputs], entry.outputs)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]  # of TorchScript's, the last says what
        raise ParityError(
            f"graph {entry.file} ({runtime.name} on {runtime.device}) fails at {case}: {lines[-1]}"
        ) from error
    outputs = dict(zip(entry.outputs, found, strict=True))
    if entry.packed is not None:
        for head, view in unpack(entry, outputs.pop(entry.packed.output)).items():
            if not np.array_equal(view, outputs[head], equal_nan=True):
                raise ParityError(f"graph {entry.file}: the packed output does not hold head {head!r} at {case}")
    return outputs


def require(
    parity: Parity,
    case: str,
    entry: Graph,
    specs: Mapping[str, HeadSpec],
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: Tolerance,
    hint: str = "",
) -> None:
    """Note every head's difference, and refuse the first that is beyond tolerance, with a hint of why that may be.

    Raises:
        ParityError: naming head, graph, runtime, case, shape and error.
    """
    for head in sorted(specs):
        parity.note(case, head, difference(actual[head], expected[head]))
        wrong = fault(specs[head], actual[head], expected[head], tolerance)
        if wrong is not None:
            raise ParityError(
                f"head {head!r} of graph {entry.file} ({parity.runtime} on {parity.device}) is not eager's: "
                f"{case}, shape {list(expected[head].shape)}: {wrong}{hint}"
            )
