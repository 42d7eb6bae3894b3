"""The gate: every head, eager against every graph, through the very runtimes that will serve.

A graph passes where, for each head and each batch size, values and decisions are eager's within tolerance; where row i
alone is row i of the batch; and where the packed output is the heads' own outputs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from polyhead.export.errors import ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.models.spec import HeadSpec
from polyhead.serving.bundle import Graph
from polyhead.serving.engine import unpack
from polyhead.serving.golden import Array, Tolerance, difference, fault, one_by_one
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
        ParityError: naming head, graph, runtime, batch and error.
    """
    parity = Parity(entry.id, runtime.name, runtime.device)
    tolerance = FP32.on(runtime.device)
    specs = graph.spec.heads
    for size in BATCHES:
        rows = {name: np.ascontiguousarray(array[np.arange(size) % len(array)]) for name, array in inputs.items()}
        actual = _run(entry, runtime, rows, size)
        expected = eager(graph, rows)
        require(parity, f"batch {size}", entry, specs, actual, expected, tolerance)
    count = min(BATCHES[-1], len(next(iter(inputs.values()))))
    together = {name: np.ascontiguousarray(array[:count]) for name, array in inputs.items()}
    batch = _run(entry, runtime, together, count)
    alone = one_by_one(lambda row: _run(entry, runtime, row, 1), together, count)
    require(parity, "row alone against row in batch", entry, specs, alone, batch, tolerance)
    return parity


def _run(entry: Graph, runtime: base.Runtime, rows: Mapping[str, Array], size: int) -> dict[str, Array]:
    """One forward pass for every output; the packed one must hold the others exactly."""
    names = [*(n for n in entry.outputs if n != entry.packed.output), entry.packed.output]
    try:
        *heads, packed = runtime.run([rows[name] for name in entry.inputs], names)
    except Exception as error:
        raise ParityError(
            f"graph {entry.file} ({runtime.name} on {runtime.device}) fails at batch {size}: {error}"
        ) from error
    outputs = dict(zip(names, heads, strict=False))
    for head, view in unpack(entry, packed).items():
        if not np.array_equal(view, outputs[head], equal_nan=True):
            raise ParityError(f"graph {entry.file}: the packed output does not hold head {head!r} at batch {size}")
    return outputs


def require(
    parity: Parity,
    case: str,
    entry: Graph,
    specs: Mapping[str, HeadSpec],
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: Tolerance,
) -> None:
    """Note every head's difference, and refuse the first that is beyond tolerance.

    Raises:
        ParityError: naming head, graph, runtime, case, shape and error.
    """
    for head in sorted(specs):
        parity.note(case, head, difference(actual[head], expected[head]))
        wrong = fault(specs[head], actual[head], expected[head], tolerance)
        if wrong is not None:
            raise ParityError(
                f"head {head!r} of graph {entry.file} ({parity.runtime} on {parity.device}) is not eager's: "
                f"{case}, shape {list(expected[head].shape)}: {wrong}"
            )
