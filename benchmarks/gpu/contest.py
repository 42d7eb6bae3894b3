"""The contenders on the same batch, in turn, and their times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.gpu.workloads import HEADS, WORKLOADS
from polyhead.export import assemble
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Precision
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.responder import Responder
from polyhead.serving.runtimes import base
from polyhead.serving.settings import Settings, available_cores

__all__ = ["BATCHES", "CONTENDERS", "Timing", "measure"]

BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTENDERS = ("replay", "pass", "handler", "per head")
ROUND = 0.05  # seconds of one contender in one round, at least


@dataclass(frozen=True)
class Timing:
    """One batch size of one model in one runtime.

    Attributes:
        mode: how the runtime's passes run, in words.
        seconds: of a batch, by contender; medians over rounds.
        over_replay: handler over replay; the median over rounds, the least and the greatest.
        per_head: per head over handler, likewise.
    """

    workload: str
    runtime: str
    mode: str
    batch: int
    seconds: Mapping[str, float]
    over_replay: tuple[float, float, float]
    per_head: tuple[float, float, float]


def measure(
    name: str,
    folder: Path,
    device: str,
    runtimes: Sequence[str],
    batches: Sequence[int] = BATCHES,
    rounds: int = 9,
    *,
    small: bool = False,
    precision: Precision = "fp32",
) -> list[Timing]:
    """Export a workload's model into a folder, and time all contenders in turn, for each runtime and batch size."""
    workload = WORKLOADS[name]
    source = workload.build(small)
    formats = list(dict.fromkeys(base.FORMATS[runtime] for runtime in runtimes))
    precisions: list[Precision] = [] if precision == "fp32" else [precision]
    bundle, _ = assemble.export(source, folder / name, formats, apart=False, precisions=precisions)
    eager = _per_head(source, device)
    timings = []
    for runtime in runtimes:
        engine = Engine.load(bundle, runtime, device, available_cores(), precision)
        responder = Responder(engine, Settings(device=device, max_batch_size=max(batches)))
        timings += [
            _timing(name, responder, workload.requests(bundle.spec, batch), eager, rounds, precision)
            for batch in batches
        ]
    return timings


PerHead = Callable[[Sequence[Array]], dict[str, Array]]


def _per_head(source: Source, device: str) -> PerHead:
    """Every head's answer from a network of its own that shares the weights."""
    network: Any = source.network
    spec = source.spec
    graphs: dict[str, nn.Module] = {}
    for head in spec.heads:
        alone = ModelSpec.parse({**spec.model_dump(mode="json"), "heads": {head: HEADS[head]}})
        graphs[head] = FusedGraph(MultiTaskNetwork(network.trunk, {head: network.heads[head]}), alone).to(device)

    def run(arrays: Sequence[Array]) -> dict[str, Array]:
        answers = {}
        with torch.inference_mode():
            for head, graph in graphs.items():
                (output,) = graph(*(torch.from_numpy(array).to(device) for array in arrays))
                answers[head] = output.cpu().numpy()
        return answers

    return run


def _timing(
    name: str, responder: Responder, requests: list[HttpRequest], eager: PerHead, rounds: int, precision: Precision
) -> Timing:
    engine, runtime = responder.engine, responder.engine.runtime
    packed = engine.graph.packed
    assert packed is not None
    assert not isinstance(runtime, Cobatching)
    arrays, outputs = _collated(responder, requests), [packed.output]

    def handler() -> None:
        before = engine.forwards
        responses = responder.respond(requests)
        assert engine.forwards == before + 1, "more than one forward pass for one batch"
        assert all(response.status == 200 for response in responses), responses[0].body[:200]

    def whole() -> None:
        runtime.run(arrays, outputs)

    for _ in range(3):  # first seen, recorded, replayed
        whole()
    _require_same(packed.views(runtime.run(arrays, outputs)[0]), eager(arrays), precision)
    buckets = getattr(runtime, "buckets", None)
    bare = None if buckets is None else buckets.bare(arrays)
    contenders = dict(zip(CONTENDERS, (bare or whole, whole, handler, lambda: eager(arrays)), strict=True))
    repeats = {contender: _repeats(run) for contender, run in contenders.items()}
    taken = []
    for index in range(rounds):
        turn = [*CONTENDERS[index % 4 :], *CONTENDERS[: index % 4]]  # each is first as often as the others
        taken.append({contender: _seconds(contenders[contender], repeats[contender]) for contender in turn})
    return Timing(
        name,
        runtime.name,
        base.mode(runtime),
        len(requests),
        {contender: statistics.median(times[contender] for times in taken) for contender in CONTENDERS},
        _spread([times["handler"] / times["replay"] for times in taken]),
        _spread([times["per head"] / times["handler"] for times in taken]),
    )


def _collated(responder: Responder, requests: Sequence[HttpRequest]) -> list[Array]:
    """The arrays of the batch, as the handler's forward pass gets them."""
    queries = [query for query in map(responder.decoding.decode, requests) if isinstance(query, Query)]
    assert len(queries) == len(requests), "a request was refused"
    (batch,) = responder.forward.collator.batches(queries)
    return [np.array(batch.inputs[name]) for name in responder.engine.graph.inputs]


def _require_same(found: Mapping[str, Array], expected: Mapping[str, Array], precision: Precision) -> None:
    """Every contender answers alike, or its time says nothing."""
    near = 1e-2 if precision == "fp32" else 1e-1
    for head, values in expected.items():
        worst = float(np.abs(found[head].reshape(values.shape) - values).max())
        assert worst <= near * max(1.0, float(np.abs(values).max())), f"head {head!r} is off by {worst}"


def _repeats(run: Callable[[], object]) -> int:
    run()
    return max(1, round(ROUND / _seconds(run, 1)))


def _seconds(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(ratios), min(ratios), max(ratios)
