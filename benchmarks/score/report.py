"""A run as a dated Markdown report, beside its JSON and plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.score.plot import plot
from benchmarks.score.targets import targets

__all__ = ["markdown", "write"]

Results = Mapping[str, Any]


def write(results: Results, folder: Path) -> Path:
    """Write `<date>-score.json`, `.png` and `.md` into a folder; returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{results['date']}-score"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, stem.with_suffix(".png"))
    stem.with_suffix(".md").write_text(markdown(results, stem.with_suffix(".png").name), encoding="utf-8")
    return stem.with_suffix(".md")


def markdown(results: Results, picture: str) -> str:
    """The whole report."""
    machine = results["machine"]
    parts = [
        f"# Batch scoring, {results['date']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"`{results['command']}`. Contenders in turn, each in processes of its own; every one has "
        f"{results['processes']} threads in all that compute. Rates are rows/s without start-up, which is what a table "
        "of eight rows takes; medians over the rounds, ratios round by round. Only ratios of one run mean anything.",
        "",
        f"![rates, as ratios to the bare loop]({picture})",
        "",
        "## What must be shown",
        "",
        *_targets(results),
    ]
    for name, workload in results["workloads"].items():
        rounds = max((len(row["turns"]) for row in workload["contenders"].values()), default=0)
        title = f"## {name}: {workload['about']}, {workload['rows']:,} rows, {workload['megabytes']:,.0f} MB of Parquet"
        parts += ["", f"{title}, {rounds} rounds", "", *_table(workload), *_notes(workload)]
    return "\n".join(parts) + "\n"


def _targets(results: Results) -> list[str]:
    lines = ["| what | target | measured | |", "| --- | ---: | ---: | --- |"]
    for one in targets(results):
        sign = "≤" if one.most else "≥"
        measured = "not measured" if one.measured is None else f"{one.measured:.2f}"
        words = {True: "met", False: "**missed**", None: ""}[one.met]
        lines.append(f"| {one.what} | {sign} {one.bound:g} | {measured} | {words} |")
    return lines


def _table(workload: Results) -> list[str]:
    lines = [
        "| contender | rows/s | of the bare loop | least, most | start-up, s | whole command, s | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = [row for row in workload["contenders"].values() if row["turns"]]
    rates = {row["name"]: [turn["rate"] for turn in row["turns"]] for row in rows}
    bare = median(rates["bare"]) if "bare" in rates else None
    for row in sorted(rows, key=lambda row: -median(rates[row["name"]])):
        found, turns = rates[row["name"]], row["turns"]
        share = "" if bare is None else f"{median(found) / bare:.2f}"
        startups = [turn["startup"] for turn in turns if turn["startup"] is not None]
        startup = f"{median(startups):.1f}" if startups else ""
        whole = f"{_middle(turns, 'seconds'):.1f}" if startups else ""
        mark = " (wrong)" if row["faults"] else ""
        lines.append(
            f"| {row['name']}{mark} | {median(found):,.0f} | {share} | {min(found):,.0f}, {max(found):,.0f} "
            f"| {startup} | {whole} | {_middle(turns, 'peak') / 1e6:,.0f} |"
        )
    return lines


def _notes(workload: Results) -> list[str]:
    lines = [f"- {row['name']}: {row['about']}" for row in workload["contenders"].values()]
    lines += [
        f"- {row['name']} **failed**: {row['faults'][0][:400]}"
        for row in workload["contenders"].values()
        if row["faults"]
    ]
    if workload["memory"]:
        words = ", ".join(f"{int(rows):,} rows {peak / 1e6:,.0f} MB" for rows, peak in workload["memory"].items())
        lines.append(f"- peak memory of polyhead score, all processes: {words}")
    return ["", *lines]


def _middle(turns: Sequence[Results], key: str) -> float:
    return float(median(turn[key] for turn in turns))
