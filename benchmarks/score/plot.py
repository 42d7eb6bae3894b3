"""The rates of a run as one picture: a panel a workload, a bar a contender, as ratios to the bare loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["plot"]

OURS, IDEAL, THEIRS = "tab:orange", "0.6", "tab:blue"


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Write a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    workloads = results["workloads"]
    most = max((len(one["contenders"]) for one in workloads.values()), default=1)
    figure, panels = plt.subplots(
        1, max(1, len(workloads)), figsize=(5.2 * max(1, len(workloads)), 1.2 + 0.42 * most), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for panel, (name, workload) in zip(panels.flat, workloads.items(), strict=True):
        rows = [row for row in workload["contenders"].values() if row["turns"] and not row["faults"]]
        rates = {row["name"]: median(turn["rate"] for turn in row["turns"]) for row in rows}
        best = rates.get("bare") or max(rates.values(), default=1.0)
        ordered = sorted(rates, key=lambda one: rates[one])
        bars = panel.barh(ordered, [rates[one] / best for one in ordered], color=[_colour(one) for one in ordered])
        words = [f"{rates[one] / best:.2f}  ({rates[one]:,.0f}/s)" for one in ordered]
        panel.bar_label(bars, words, padding=3, fontsize=8)
        panel.set(title=f"{name}, {workload['rows']:,} rows", xlim=(0, 1.6), xticks=[0, 0.5, 1.0])
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Rows/s without start-up, as a ratio to the bare forward loop, {results['date']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _colour(name: str) -> str:
    return IDEAL if name == "bare" else OURS if name.startswith("polyhead") else THEIRS
