"""What Polyhead must show beside its peers, and whether it did: ratios of one run, misses like hits."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Target", "targets"]

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        what: is compared.
        bound: that the ratio must reach, or stay within.
        measured: None where the run has not measured it.
        most: the ratio must stay within the bound, not reach it.
    """

    what: str
    bound: float
    measured: float | None
    most: bool = False

    @property
    def met(self) -> bool | None:
        """None where not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.most else self.measured >= self.bound


def targets(results: Results) -> list[Target]:
    """Every target, measured or not.

    Args:
        results: as the report's JSON has them.
    """
    return [
        Target("mlp, binary: peak over mosec's", 1.0, ratio(results, "mlp", "mosec")),
        Target("mlp, binary: peak over TorchServe's as shipped", 3.0, ratio(results, "mlp", "torchserve")),
        Target("mlp, binary, one connection: p50 over the best peer's", 1.0, alone(results, "mlp"), most=True),
        Target("mlp, JSON: peak over mosec's", 0.9, ratio(results, "mlp-json", "mosec")),
        Target("mlp, JSON: peak over LitServe's", 8.0, ratio(results, "mlp-json", "litserve")),
        Target("mlp, JSON: peak over BentoML's", 8.0, ratio(results, "mlp-json", "bentoml")),
        Target("64 rows a request: peak over mosec's", 1.0, ratio(results, "mlp-64rows", "mosec")),
        Target("64 rows a request: peak over the bare forward pass", 0.65, over_bare(results, "mlp-64rows")),
        Target("resnet18: peak over the bare forward pass", 0.9, over_bare(results, "resnet18")),
        Target("minilm: peak over the bare forward pass", 0.9, over_bare(results, "minilm")),
        *(
            Target(f"{name}: p99 at 70 % of peak over one full batch", 3.0, patience(results, name), most=True)
            for name in ("resnet18", "minilm")
        ),
        Target(
            "16 heads over one head, MiniLM, in process: time", 1.05, results.get("cobatching", {}).get("heads"), True
        ),
        *(
            Target(
                f"mixed ({name}), in process: every head for everyone over planned, time", 1.5, _contest(results, name)
            )
            for name in results.get("cobatching", {})
            if name != "heads"
        ),
        Target("mixed, HTTP: peak over every head for everyone", 1.5, ratio(results, "mixed", "polyhead-all")),
    ]


def contender(results: Results, workload: str, name: str) -> Mapping[str, Any] | None:
    """One contender's figures; None where it was not measured, did not start, or answered wrongly."""
    found: Mapping[str, Any] | None = results.get("workloads", {}).get(workload, {}).get("contenders", {}).get(name)
    return None if found is None or found["absent"] or found["faults"] or not found["turns"] else found


def ratio(results: Results, workload: str, peer: str) -> float | None:
    """Polyhead's peak over a peer's."""
    ours, theirs = contender(results, workload, "polyhead"), contender(results, workload, peer)
    return None if ours is None or theirs is None or not theirs["rate"] else ours["rate"] / theirs["rate"]


def alone(results: Results, workload: str) -> float | None:
    """Polyhead's p50 over the best peer's, of one connection."""
    ours = contender(results, workload, "polyhead")
    names = results.get("workloads", {}).get(workload, {}).get("contenders", {})
    peers = [contender(results, workload, name) for name in names if not name.startswith("polyhead")]
    best = min((peer["alone"] for peer in peers if peer and peer["alone"]), default=None)
    return None if ours is None or best is None else ours["alone"] / best


def over_bare(results: Results, workload: str) -> float | None:
    """Polyhead's rate over the bare forward pass at the batch sizes that arose: the median over rounds."""
    ours = contender(results, workload, "polyhead")
    if ours is None:
        return None
    bare = results["workloads"][workload]["bare"]
    found = []
    for turn, timed in zip(ours["turns"], bare, strict=False):
        seconds = timed["seconds"].get(str(turn["batch"]))
        if seconds:
            best = max(turn["peaks"], key=lambda peak: (not peak["errors"], peak["rate"]))
            found.append(best["rate"] * seconds / turn["batch"])
    return statistics.median(found) if found else None


def patience(results: Results, workload: str) -> float | None:
    """p99 under load over the bare forward pass of a full batch: the median over rounds."""
    ours = contender(results, workload, "polyhead")
    if ours is None:
        return None
    pairs = zip(ours["turns"], results["workloads"][workload]["bare"], strict=False)
    found = [turn["load"]["p99"] / timed["seconds"]["64.0"] for turn, timed in pairs if turn["load"]]
    return statistics.median(found) if found else None


def _contest(results: Results, name: str) -> float | None:
    contests = results["cobatching"][name]["contests"]
    return next((contest["everyone"] for contest in contests if contest["share"] == 0.1), None)
