"""What must be shown, and what a run says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Target", "ratio", "targets"]

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A ratio and its bound.

    Attributes:
        what: in words.
        bound: at least; at most, where `most`.
        measured: None where the run did not measure it.
    """

    what: str
    bound: float
    measured: float | None
    most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is met."""
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.most else self.measured >= self.bound


def targets(results: Results) -> Sequence[Target]:
    """Every target, in the order of the design."""
    found = [
        Target("smarthome: Polyhead over the bare loop", 0.95, ratio(results, "smarthome", "polyhead", "bare")),
        Target("mlp, Parquet: Polyhead over the bare loop", 0.6, ratio(results, "mlp", "polyhead", "bare")),
        Target("mlp, Arrow: Polyhead over the bare loop", 0.6, ratio(results, "mlp", "polyhead-arrow", "bare")),
        Target("smarthome: Ray over local", 0.9, ratio(results, "smarthome", "polyhead-ray", "polyhead")),
        Target("skewed: sorted over unsorted", 1.3, ratio(results, "skewed", "polyhead", "polyhead-unsorted")),
    ]
    for name, workload in results["workloads"].items():
        peaks = list(workload["memory"].values())
        measured = peaks[1] / peaks[0] if len(peaks) == 2 else None
        found.append(Target(f"{name}: memory for ten times the rows", 1.1, measured, most=True))
    return found


def ratio(results: Results, workload: str, one: str, other: str) -> float | None:
    """The median over rounds of one contender's rate over another's, of the same round."""
    contenders = results["workloads"].get(workload, {}).get("contenders", {})
    if any(name not in contenders or contenders[name]["faults"] for name in (one, other)):
        return None
    pairs = zip(contenders[one]["turns"], contenders[other]["turns"], strict=False)
    found = [left["rate"] / right["rate"] for left, right in pairs]
    return median(found) if found else None
