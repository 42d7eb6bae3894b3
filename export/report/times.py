"""How long the trunk and each head take on this machine: medians of interleaved runs in ONNX Runtime on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from polyhead.export.timing.machine import machine
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array, Golden
from polyhead.serving.manifest import Graph, Manifest
from polyhead.serving.split import SplitRuntime

__all__ = ["BATCHES", "Times", "measure"]

BATCHES = (1, 64)
RUNTIME, DEVICE = "onnxruntime", "cpu"
VISIT = 0.01  # seconds that a part is run for in a row, about
MOST = 2000  # passes in it
WARM = 2  # passes before anything counts
ROUNDS, FEW = 7, 3  # visits of each part
SLOW = 1.0  # seconds of a round from which on few are made

Pass = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of a forward pass, by rows of it.

    Attributes:
        machine: where that was: processor, cores, versions.
        threads: of a forward pass.
        whole: of the fused graph, all heads; empty where the bundle has none for ONNX Runtime.
        parts: by part as in the manifest, `trunk` and `heads/<head>`, each run by itself on what the trunk returned;
            empty where the bundle has no such graphs.
    """

    machine: str
    threads: int
    whole: dict[int, float] = field(default_factory=dict)
    parts: dict[str, dict[int, float]] = field(default_factory=dict)


def measure(bundle: Bundle, threads: int, batches: Sequence[int] = BATCHES) -> Times:
    """Time every part of a bundle, and the fused graph beside them, on golden rows.

    Args:
        bundle: an opened bundle.
        threads: of a forward pass.
        batches: rows of a forward pass; golden rows are repeated where there are fewer.

    Raises:
        RuntimeUnavailable: ONNX Runtime is not installed.
        BundleError: a file is not the one that the manifest names.
    """
    times = Times(machine(DEVICE), threads)
    engine = _fused(bundle, threads)
    chain = SplitRuntime.load(bundle, DEVICE, threads) if _is_split(bundle.manifest) else None
    golden = bundle.golden()
    for batch in batches:
        rows = _rows(golden, batch)
        passes: dict[str, Pass] = {}
        if engine is not None:
            passes[""] = partial(engine.run, rows)
        if chain is not None:
            passes |= _parts(chain, bundle.spec.heads, rows)
        for name, seconds in interleaved(passes).items():
            (times.parts.setdefault(name, {}) if name else times.whole)[batch] = seconds
    return times


def _fused(bundle: Bundle, threads: int) -> Engine | None:
    found = [graph for graph in bundle.manifest.graphs if graph.part == "fused" and _is_plain(graph)]
    return Engine.of(bundle, Chosen(found[0], RUNTIME, "timed"), DEVICE, threads) if found else None


def _is_split(manifest: Manifest) -> bool:
    return any(graph.part == "trunk" and _is_plain(graph) for graph in manifest.graphs)


def _is_plain(graph: Graph) -> bool:
    return graph.format == "onnx" and graph.precision == "fp32"


def _rows(golden: Golden, batch: int) -> dict[str, Array]:
    """So many golden rows: `[batch, …]` by array."""
    index = np.arange(batch) % golden.rows
    return {name: np.ascontiguousarray(array[index]) for name, array in golden.inputs.items()}


def _parts(chain: SplitRuntime, heads: Iterable[str], rows: dict[str, Array]) -> dict[str, Pass]:
    """A pass of each part; those of the heads begin with what the trunk returned."""
    features = chain.features(rows)
    passes: dict[str, Pass] = {"trunk": partial(chain.features, rows)}
    for head in heads:
        passes[f"heads/{head}"] = partial(chain.head, head, features)
    return passes


def interleaved(passes: Mapping[str, Pass]) -> dict[str, float]:
    """The median seconds of each, over rounds in which they take turns: what slows the machine slows all of them."""
    counts: dict[str, int] = {}
    round_seconds = 0.0
    for name, run in passes.items():
        for _ in range(WARM):
            run()
        seconds = _seconds(run, 1)
        counts[name] = max(1, min(MOST, int(VISIT / seconds)))
        round_seconds += seconds * counts[name]
    rounds = FEW if round_seconds > SLOW else ROUNDS
    visits: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, run in passes.items():
            visits[name].append(_seconds(run, counts[name]))
    return {name: statistics.median(found) for name, found in visits.items()}


def _seconds(run: Pass, count: int) -> float:
    """Of one pass, the median of so many in a row."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
