"""The peaks of a run as one picture: a panel a workload, a bar a contender, as ratios to the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["plot"]

OURS, THEIRS, FAULTY = "tab:orange", "tab:blue", "0.7"
COLUMNS = 2


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Write a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    workloads = {
        name: rows
        for name, workload in results["workloads"].items()
        if (rows := [row for row in workload["contenders"].values() if row["turns"]])
    }
    lines = max(1, -(-len(workloads) // COLUMNS))
    most = max((len(rows) for rows in workloads.values()), default=1)
    figure, panels = plt.subplots(
        lines, COLUMNS, figsize=(11, lines * (1.1 + 0.3 * most)), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(workloads) :]:
        panel.axis("off")
    for panel, (name, rows) in zip(panels.flat, workloads.items(), strict=False):
        rows.sort(key=lambda row: row["rate"])
        best = rows[-1]["rate"] or 1.0
        colours = [FAULTY if row["faults"] else OURS if row["name"] == "polyhead" else THEIRS for row in rows]
        bars = panel.barh([row["name"] for row in rows], [row["rate"] / best for row in rows], color=colours)
        panel.bar_label(
            bars, [f"{row['rate'] / best:.2f}  ({row['rate']:,.0f}/s)" for row in rows], padding=3, fontsize=8
        )
        panel.set(title=name, xlim=(0, 1.45), xticks=[0, 0.5, 1.0])
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Peak requests/s as a ratio to the best, {results['date']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
