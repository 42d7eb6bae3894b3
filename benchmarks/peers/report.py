"""A run as a dated Markdown report, beside its JSON and plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.plot import plot
from benchmarks.peers.targets import Target, targets

__all__ = ["markdown", "write"]

Results = Mapping[str, Any]


def write(results: Results, folder: Path) -> Path:
    """Write `<date>-peers.json`, `.png` and `.md` into a folder; returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{results['date']}-peers"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot(results, stem.with_suffix(".png"))
    stem.with_suffix(".md").write_text(markdown(results, stem.with_suffix(".png").name), encoding="utf-8")
    return stem.with_suffix(".md")


def markdown(results: Results, picture: str) -> str:
    """The whole report."""
    machine = results["machine"]
    parts = [
        f"# Polyhead beside its peers, {results['date']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"{results['pinning']}. {results['rounds']} rounds, contenders in turn, medians. Every contender: one worker, "
        "one thread a forward pass, batches of 64, 1 ms of delay. Only ratios of one run mean anything. "
        "How it is done, and what is fair: [docs/benchmarks.md](../../docs/benchmarks.md).",
        "",
        f"![peaks, as ratios to the best]({picture})",
        "",
        "## What must be shown",
        "",
        *_targets(targets(results)),
    ]
    for name, workload in results["workloads"].items():
        parts += ["", f"## {name}: {workload['about']}", "", *_table(workload), *_notes(workload)]
    parts += _cobatching(results["cobatching"])
    parts += ["", "## Contenders", "", *_contenders(results)]
    return "\n".join(parts) + "\n"


def _targets(found: Sequence[Target]) -> list[str]:
    lines = ["| what | target | measured | |", "| --- | ---: | ---: | --- |"]
    for one in found:
        sign = "≤" if one.most else "≥"
        measured = "not measured" if one.measured is None else f"{one.measured:.2f}"
        words = {True: "met", False: "**missed**", None: ""}[one.met]
        lines.append(f"| {one.what} | {sign} {one.bound:g} | {measured} | {words} |")
    return lines


def _table(workload: Results) -> list[str]:
    lines = [
        "| contender | requests/s | of the best | at connections | one connection: p50, ms | load: p50, p99, ms | MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = [row for row in workload["contenders"].values() if not row["absent"]]
    best = max((row["rate"] for row in rows), default=1.0) or 1.0
    for row in sorted(rows, key=lambda row: -row["rate"]):
        mark = " (wrong answers)" if row["faults"] else ""
        loads = [turn["load"] for turn in row["turns"] if turn["load"]]
        load = f"{_median(loads, 'p50'):.1f}, {_median(loads, 'p99'):.1f}" if loads else ""
        connections = max(row["rates"], key=lambda number: median(row["rates"][number]))
        lines.append(
            f"| {row['name']}{mark} | {row['rate']:,.0f} | {row['rate'] / best:.2f} | {connections} "
            f"| {(row['alone'] or 0) * 1e3:.2f} | {load} | {row['memory'] / 1e6:.0f} |"
        )
    return lines


def _notes(workload: Results) -> list[str]:
    lines = []
    for row in workload["contenders"].values():
        if row["absent"]:
            lines.append(f"- {row['name']} did not start: {row['absent'][:300]}")
        for place, count in row["errors"].items():
            where = "under the Poisson load" if place == "load" else f"at {place} connections"
            lines.append(f"- {row['name']}: {count} requests failed {where}; that is not among its best")
        if row["faults"]:
            lines.append(f"- {row['name']}: {len(row['faults'])} wrong answers, the first: {row['faults'][0][:200]}")
        loads = [turn["load"] for turn in row["turns"] if turn["load"]]
        if loads:
            cpu, checked = median(load["cpu"] for load in loads), sum(load["checked"] for load in loads)
            lines.append(
                f"- {row['name']} under 70 % of its peak: the client itself took {cpu:.2f} of a core, and sent "
                f"{_median(loads, 'late'):.2f} ms late (p99); {checked} answers were checked"
            )
        if row["batch"]:
            lines.append(f"- {row['name']}: {row['batch']:.1f} requests shared a forward pass at its best")
    bare = [timed["seconds"]["64.0"] for timed in workload["bare"]]
    if bare:
        lines.append(
            f"- bare forward pass, one core, 64 requests: {median(bare) * 1e3:.2f} ms, "
            f"{64 / median(bare):,.0f} requests/s"
        )
    return ["", *lines] if lines else []


def _cobatching(found: Results) -> list[str]:
    """One batch of 64 in process: planned, every head for everyone, and one batch per set of heads."""
    if not found:
        return []
    lines = ["", "## In process: one batch of 64, a head as dear as the trunk", ""]
    lines += ["| trunk | rows that ask | every head for everyone / planned | one batch per head-set / planned |"]
    lines += ["| --- | ---: | ---: | ---: |"]
    for name, one in found.items():
        if name != "heads":
            lines += [
                f"| {name} | {contest['share']:.0%} | {contest['everyone']:.2f} | {contest['by_set']:.2f} |"
                for contest in one["contests"]
            ]
    return [*lines, "", f"16 heads over one head, MiniLM: {found['heads']:.3f} times the time."]


def _contenders(results: Results) -> list[str]:
    seen: dict[str, str] = {}
    for workload in results["workloads"].values():
        for row in workload["contenders"].values():
            pinned = f" ({', '.join(row['packages'])})" if row["packages"] else ""
            seen[row["name"]] = f"- {row['name']}: {row['about']}{pinned}"
    return list(seen.values())


def _median(rows: Sequence[Results], key: str) -> float:
    """In milliseconds."""
    return float(1e3 * median([row[key] for row in rows]))
