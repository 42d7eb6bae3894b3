"""The times as tables, as a plot, and as a dated report."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.contest import CONTENDERS, Timing
from benchmarks.gpu.workloads import WORKLOADS

__all__ = ["grouped", "plot", "table", "write"]

AIM, AIMED_AT = 1.15, 32  # handler over replay, at this batch


def table(timings: Sequence[Timing]) -> str:
    """Of one model in one runtime, Markdown."""
    first = timings[0]
    lines = [
        f"## {WORKLOADS[first.workload].about}; {first.runtime}, {first.mode}",
        "",
        f"| batch | {' | '.join(f'{c}, ms' for c in CONTENDERS)} | handler / replay | per head / handler |",
        "| ---: |" + " ---: |" * (len(CONTENDERS) + 2),
    ]
    for t in timings:
        times = " | ".join(f"{t.seconds[contender] * 1e3:.3f}" for contender in CONTENDERS)
        ratios = " | ".join(f"**{m:.2f}** ({low:.2f} to {high:.2f})" for m, low, high in (t.over_replay, t.per_head))
        lines.append(f"| {t.batch} | {times} | {ratios} |")
    return "\n".join(lines) + "\n"


def grouped(timings: Sequence[Timing]) -> dict[tuple[str, str], list[Timing]]:
    """By model and runtime, in the order they were measured."""
    groups: dict[tuple[str, str], list[Timing]] = {}
    for timing in timings:
        groups.setdefault((timing.workload, timing.runtime), []).append(timing)
    return groups


def plot(timings: Sequence[Timing]) -> bytes:
    """A PNG: both ratios over the batch size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for (workload, runtime), group in grouped(timings).items():
        batches, label = [t.batch for t in group], f"{workload}, {runtime}"
        left.plot(batches, [t.over_replay[0] for t in group], "o-", label=label)
        right.plot(batches, [t.per_head[0] for t in group], "o-", label=label)
    left.axhline(AIM, color="tab:red", linewidth=1, linestyle="--", label=f"aim at batch {AIMED_AT}: {AIM}")
    for panel, title in ((left, "handler / replay"), (right, "eager handlers per head / handler")):
        panel.axhline(1.0, color="0.6", linewidth=1)
        panel.set_xscale("log", base=2)
        ticks = sorted({t.batch for t in timings})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set(xlabel="requests in the batch", ylabel=title, ylim=(0, None))
    left.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    return buffer.getvalue()


def write(timings: Sequence[Timing], machine: Mapping[str, str], about: str, folder: Path) -> Path:
    """Keep `<date>-gpu.json`, `.png` and `.md`; returns the Markdown's path."""
    stem = folder / f"{datetime.date.today().isoformat()}-gpu"
    folder.mkdir(exist_ok=True)
    content = {"machine": machine, "timings": [asdict(timing) for timing in timings]}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".png").write_bytes(plot(timings))
    parts = [
        f"# Serving over the bare replay of a CUDA graph, {stem.name[:10]}",
        "",
        "; ".join(f"{key}: {value}" for key, value in machine.items()) + ".",
        "",
        about.strip(),
        "",
        f"Medians over rounds in which all run in turn, least and greatest in brackets. Aim: {AIM} at {AIMED_AT}.",
        "",
        f"![both ratios over the batch size]({stem.name}.png)",
        "",
        *(table(group) for group in grouped(timings).values()),
    ]
    stem.with_suffix(".md").write_text("\n".join(parts), encoding="utf-8")
    return stem.with_suffix(".md")
