"""Which heads run apart, on the rows that ask for them: from their operations first, then from their measured cost.

A fused graph computes every head for everybody. A head apart costs a call of its own and is saved where nobody asks for
it; where the one outweighs the other is measured on the device that serves, when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from polyhead.models.arrays import array_specs
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen
from polyhead.serving.cobatching import Cobatching, require_split
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Manifest
from polyhead.serving.runtimes import base

__all__ = ["AUTO", "NONE", "Cost", "Plan", "candidates", "decide", "load", "measure", "pays_below"]

AUTO, NONE = "auto", "none"
# Of the whole: a head below it is not worth a call of its own, even where nobody ever asks for it.
LEAST_SHARE = 0.03
SIZES = (1, 8, 64)  # rows of the passes that are measured
ROUNDS = 9  # of each size, at most; the least time counts, for what disturbs a pass only adds to it
SECONDS = 3.0  # that the measurement of one model may take, the first pass of all aside

Seconds = Mapping[str, float]


@dataclass(frozen=True)
class Cost:
    """Seconds at one batch size.

    Attributes:
        rows: of the batch.
        fused: of one pass of everything.
        base: of the trunk and the heads that are no candidates.
        heads: of each candidate, called for every row of the batch.
    """

    rows: int
    fused: float
    base: float
    heads: Seconds

    @property
    def call(self) -> float:
        """What each head's own call costs beyond the head's work, where every row asks for every head."""
        return max(0.0, self.base + sum(self.heads.values()) - self.fused) / len(self.heads)


@dataclass(frozen=True)
class Plan:
    """What was decided.

    Attributes:
        apart: heads that run on the rows that ask for them; the fused graph runs where there are none.
        why: in words.
        costs: by rising batch size; empty where nothing was measured.
    """

    apart: tuple[str, ...]
    why: str
    costs: tuple[Cost, ...] = ()


def load(
    bundle: Bundle, chosen: Chosen, device: str, threads: int, apart: str = AUTO, max_rows: int = SIZES[-1]
) -> tuple[Plan, base.Runtime | Cobatching]:
    """Decide, and load what was decided: the fused graph, or what stands for it.

    Args:
        bundle: the model's.
        chosen: the fused graph and its runtime.
        device: as `base.resolve_device` returned it.
        threads: of one forward pass.
        apart: `auto`, `none`, or head names with commas between.
        max_rows: of a batch; larger ones are not measured.

    Raises:
        RuntimeUnavailable: a head was named, and cannot run apart; or a runtime refuses its graph.
    """
    named = _named(apart)
    obstacle = _obstacle(bundle, chosen)
    if named and obstacle is not None:
        require_split(bundle)
        raise RuntimeUnavailable(f"heads {', '.join(named)} cannot run apart: {obstacle}; serve it with apart=auto")
    if named:
        return Plan(named, "as asked"), Cobatching.load(bundle, chosen.graph, named, device, threads)
    graph = chosen.graph
    fused = base.load(chosen.runtime, graph, bundle.graph_files(graph), device, threads)
    if apart == NONE:
        return Plan((), "as asked"), fused
    if obstacle is not None:
        return Plan((), obstacle), fused
    dear = candidates(bundle.manifest)
    if not dear:
        return Plan((), f"no head has {LEAST_SHARE:.0%} of the model's operations"), fused
    split = Cobatching.load(bundle, graph, dear, device, threads)
    costs = measure(bundle, fused, split, [size for size in SIZES if size <= max_rows])
    plan = decide(costs)
    if not plan.apart:
        return plan, fused
    if plan.apart != dear:
        split = Cobatching.load(bundle, graph, plan.apart, device, threads)
    return plan, split


def _named(apart: str) -> tuple[str, ...]:
    """The heads that a setting names; none where it is `auto` or `none`."""
    return () if apart in (AUTO, NONE) else tuple(dict.fromkeys(name.strip() for name in apart.split(",")))


def _obstacle(bundle: Bundle, chosen: Chosen) -> str | None:
    """Why no head can run apart, whatever it costs."""
    if bundle.manifest.unsplit is not None:
        return f"the bundle has no graphs of trunk and heads: {bundle.manifest.unsplit}"
    if chosen.runtime != "onnxruntime" or chosen.graph.precision != "fp32":
        return f"trunk and heads are ONNX graphs in fp32, and {chosen.graph.id} on {chosen.runtime} was chosen"
    return None


def candidates(manifest: Manifest) -> tuple[str, ...]:
    """Heads whose operations are worth measuring; those that could not be counted are."""
    counts = {name: part.flops for name, part in manifest.parts.items()}
    whole = sum(count or 0 for count in counts.values())
    found = []
    for head in manifest.spec.head_names:
        count = counts.get(f"heads/{head}")
        if count is None or counts.get("trunk") is None or count >= LEAST_SHARE * whole:
            found.append(head)
    return tuple(found)


def measure(
    bundle: Bundle, fused: base.Runtime, split: Cobatching, sizes: Sequence[int], seconds: float = SECONDS
) -> tuple[Cost, ...]:
    """Passes of golden rows, in turn; of a slow model fewer, and only at small sizes.

    Args:
        bundle: has the golden rows.
        fused: the fused graph, loaded.
        split: the same, its candidates apart.
        sizes: rows, rising.
        seconds: that it may take, the first pass of all aside.

    Returns:
        One entry at least.
    """
    start, found = perf_counter(), []
    for number, size in enumerate(sizes):
        passes = _passes(bundle, fused, split, size)
        once = sum(_timed(run) for run in passes.values())  # also the first time of a shape, which no request shall pay
        left = seconds - (perf_counter() - start)
        share = left / (len(sizes) - number)
        rounds = max(1, min(ROUNDS, int(share / once)))
        times: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(rounds):
            for name, run in passes.items():
                times[name].append(_timed(run))
        least = {name: min(values) for name, values in times.items()}
        heads = {head: least[f"heads/{head}"] for head in split.apart}
        found.append(Cost(size, least["fused"], least["base"], heads))
        left = seconds - (perf_counter() - start)
        if size != sizes[-1] and 2 * sum(least.values()) * sizes[number + 1] / size > left:
            break
    split.head_rows.clear()  # of requests alone
    return tuple(found)


def _passes(bundle: Bundle, fused: base.Runtime, split: Cobatching, size: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name, on so many golden rows."""
    golden, heads = bundle.golden(), bundle.spec.head_names
    index = np.arange(size) % golden.rows
    inputs = {name: np.ascontiguousarray(golden.inputs[name][index]) for name in array_specs(bundle.spec)}
    ordered = [inputs[name] for name in split.fused.inputs]
    packed = split.fused.packed
    names = heads if packed is None else (packed.output, *(head for head in heads if head not in packed.columns))
    given = [inputs[name] for name in split.graph.inputs]
    features = split.features(inputs)
    passes: dict[str, Callable[[], object]] = {
        "fused": lambda: fused.run(ordered, names),
        "base": lambda: split.base.run(given, split.graph.outputs),  # features too, as where somebody asks
    }
    return passes | {f"heads/{head}": partial(split.head, head, features) for head in split.apart}


def _timed(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def decide(costs: Sequence[Cost]) -> Plan:
    """Apart are the heads that save more where nobody asks for them than their call costs where everybody does.

    How many rows will ask for a head is not known when a model is loaded. Under this rule the head apart is the better
    choice for at least half of what that number may be, at every batch size that was measured.

    Args:
        costs: by rising batch size, one at least.
    """
    largest = costs[-1]
    apart = tuple(
        head
        for head, seconds in largest.heads.items()
        if seconds - largest.call >= LEAST_SHARE * largest.fused
        and all(cost.heads[head] > 2 * cost.call for cost in costs)
    )
    every = tuple(largest.heads)
    if not apart:
        return Plan((), f"a call of its own costs more than it saves ({_times(largest, every)})", tuple(costs))
    below = pays_below(costs, apart)
    when = "however many rows ask" if below == 1 else f"where up to {below:.0%} of the rows ask"
    return Plan(apart, f"pays {when} ({_times(largest, apart)})", tuple(costs))


def pays_below(costs: Sequence[Cost], heads: Sequence[str]) -> float:
    """The share of rows of the largest batch below which heads apart are faster than the fused graph, 0 to 1.

    Between the batch sizes that were measured, times are interpolated; one call costs at least what one row costs.
    """
    largest = costs[-1]
    sizes = [cost.rows for cost in costs]
    gone = [head for head in largest.heads if head not in heads]
    saved = largest.fused - largest.base - sum(largest.heads[head] - largest.call for head in gone)
    asked = np.arange(1, largest.rows + 1)
    spent = sum(np.interp(asked, sizes, [cost.heads[head] for cost in costs]) for head in heads)
    return float(np.count_nonzero(spent < saved) / largest.rows)


def _times(cost: Cost, heads: Sequence[str]) -> str:
    """`region 1.20 ms of 4.31 ms at 64 rows, 0.03 ms a call`."""
    words = ", ".join(f"{head} {cost.heads[head] * 1e3:.2f} ms" for head in heads)
    return f"{words} of {cost.fused * 1e3:.2f} ms at {cost.rows} rows, {cost.call * 1e3:.2f} ms a call"
