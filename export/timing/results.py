"""What timing found, as `bench.json` holds it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import StrictBool, StrictInt, StrictStr

from polyhead.export.timing.contenders import Contender
from polyhead.models.spec import Strict
from polyhead.serving.manifest import Precision

__all__ = ["Refusal", "Results", "Timing", "summarised"]

Rounds = Mapping[tuple[Contender, int], Sequence[Sequence[float]]]


class Timing(Strict):
    """A contender at one batch size. Seconds are of one forward pass, golden rows in, all heads' outputs on the CPU.

    Attributes:
        contender: what the table calls it: runtime and precision, or `eager`.
        graph: its id; None of the eager network.
        batch: rows of a forward pass.
        median_seconds: the median of the rounds' medians.
        low_seconds, high_seconds: the rounds' smallest and largest median.
        p95_seconds: the median of the rounds' 95th percentiles. Not of all passes together: a fast round has more of
            them, and would hide a slow one.
        rows_per_second: at the median.
        speed: how many times as fast as the reference, the median over the rounds, each by itself.
        reference: the contender that it is measured by: eager, or where that was not timed the device's first.
        passes: that were timed.
    """

    contender: StrictStr
    graph: StrictStr | None
    runtime: StrictStr
    precision: Precision
    device: StrictStr
    batch: StrictInt
    median_seconds: float
    low_seconds: float
    high_seconds: float
    p95_seconds: float
    rows_per_second: float
    speed: float
    reference: StrictStr
    passes: StrictInt


class Refusal(Strict):
    """A contender without times.

    Attributes:
        reason: why.
        wrong: it answered, and not as the golden samples say.
    """

    contender: StrictStr
    graph: StrictStr | None
    runtime: StrictStr
    precision: Precision
    device: StrictStr
    reason: StrictStr
    wrong: StrictBool


class Results(Strict):
    """Everything that was timed.

    Attributes:
        model: name and version.
        bundle: the sha256 of the manifest of the bundle that was timed.
        machines: by device, what it is.
        threads: of one forward pass on the CPU.
        load: the kernel's average over the minute before: processes that wanted a core.
        rounds: visits of every contender at every batch size.
        batches: sizes.
        eager: why the eager network was not timed, where it was not.
    """

    model: StrictStr
    bundle: StrictStr
    machines: dict[str, str]
    threads: StrictInt
    load: float
    rounds: StrictInt
    batches: tuple[StrictInt, ...]
    eager: StrictStr | None
    timings: tuple[Timing, ...]
    refused: tuple[Refusal, ...]


def summarised(times: Rounds, order: Sequence[Contender], batches: Sequence[int]) -> list[Timing]:
    """Figures of the contenders that were timed.

    Args:
        times: by contender and batch size, of each round the seconds of every pass.
        order: the contenders that have times; the first of a device is its reference.
        batches: sizes.
    """
    reference: dict[str, Contender] = {}
    for contender in order:
        reference.setdefault(contender.device, contender)
    return [
        _timing(contender, batch, times[contender, batch], times[reference[contender.device], batch], reference)
        for contender in order
        for batch in batches
    ]


def _timing(
    contender: Contender,
    batch: int,
    rounds: Sequence[Sequence[float]],
    beside: Sequence[Sequence[float]],
    reference: Mapping[str, Contender],
) -> Timing:
    medians = [statistics.median(passes) for passes in rounds]
    median = statistics.median(medians)
    percentiles = [float(np.percentile(passes, 95)) for passes in rounds]
    # Round by round: what slows the machine down for a while slows both.
    ratios = [statistics.median(other) / own for own, other in zip(medians, beside, strict=True)]
    return Timing(
        contender=contender.name,
        graph=contender.graph,
        runtime=contender.runtime,
        precision=contender.precision,
        device=contender.device,
        batch=batch,
        median_seconds=median,
        low_seconds=min(medians),
        high_seconds=max(medians),
        p95_seconds=statistics.median(percentiles),
        rows_per_second=batch / median,
        speed=statistics.median(ratios),
        reference=reference[contender.device].name,
        passes=sum(map(len, rounds)),
    )
