"""Rows per second over the batch size, one line per contender, one panel per device."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from polyhead.export.timing.contenders import EAGER
from polyhead.export.timing.results import Results, Timing
from polyhead.models.page.canvas import COLOURS, GREY, MARKERS, figure, pixels, png, printable, styled, wrapped
from polyhead.serving.manifest import Precision
from polyhead.serving.runtimes import base

__all__ = ["apart", "drawn"]

# A runtime is a colour, a precision a dash and a mark; eager is black.
DASHES: dict[Precision, str] = {"fp32": "-", "fp16": "--", "bf16": ":", "int8": "-."}
PANEL = 3.2  # inches of a panel's height, where few labels stand in it
AROUND = 0.9  # of it above and below the axis
LABEL = 0.17  # inches from one label to the next
MARGIN = 1.3  # of the axis, beyond the smallest and the largest batch
ASIDE = 1.15  # the farthest that points are moved aside
WORDS = 7.5  # points
LETTERS = 90  # of these in a line over a panel
# From a label's left end to its point.
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "alpha": 0.6, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 1}
FEW = 2000  # of largest to smallest value, below which powers of ten alone are too few numbers on an axis


def drawn(results: Results) -> bytes:
    """The plot as a PNG file."""
    panels: dict[str, dict[str, list[Timing]]] = {}
    for timing in results.timings:
        panels.setdefault(timing.device, {}).setdefault(timing.contender, []).append(timing)
    height = max(PANEL, AROUND + LABEL * (1 + max(len(lines) for lines in panels.values())))
    with styled():
        title = f"{results.model}: rows per second; bars: slowest to fastest round"
        whole = figure(height * len(panels), title)
        axes = whole.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, (device, lines) in zip(axes, panels.items(), strict=True):
            _panel(axis, results, device, list(lines.values()))
            _labels(axis, [line[-1] for line in lines.values()], LABEL / (height - AROUND))
        return png(pixels(whole))


def _panel(axis: Axes, results: Results, device: str, lines: Sequence[Sequence[Timing]]) -> None:
    for index, line in enumerate(lines):
        # Contenders of nearly the same speed would hide each other's bars: each stands a little aside.
        _line(axis, line, ASIDE ** (2 * (index + 0.5) / len(lines) - 1))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(min(results.batches) / MARGIN, max(results.batches) * MARGIN)
    axis.set_xticks(results.batches, [f"{batch}" for batch in results.batches])
    axis.xaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < FEW else (1.0,)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_xlabel("rows of a forward pass")
    axis.set_ylabel("rows per second")
    threads = f", {results.threads} thread{'' if results.threads == 1 else 's'}" if device == "cpu" else ""
    where = f"{device}: {results.machines[device]}{threads}"
    axis.set_title(wrapped(where, LETTERS), loc="left", fontsize=WORDS, color=GREY)


def _line(axis: Axes, line: Sequence[Timing], aside: float) -> None:
    sizes = [timing.batch for timing in line]
    speeds = [timing.rows_per_second for timing in line]
    low = [timing.rows_per_second - timing.batch / timing.high_seconds for timing in line]
    high = [timing.batch / timing.low_seconds - timing.rows_per_second for timing in line]
    colour, dashes, mark = _look(line[0])
    axis.errorbar(
        [size * aside for size in sizes],
        speeds,
        yerr=(low, high),
        color=colour,
        linestyle=dashes,
        marker=mark,
        markersize=4,
        linewidth=1.4,
        elinewidth=0.8,
        capsize=2,
    )


def _look(timing: Timing) -> tuple[str, str, str]:
    """Colour, dashes and mark of a contender."""
    if timing.contender == EAGER:
        return COLOURS[-1], "-", MARKERS[-1]
    runtime = list(base.FORMATS).index(timing.runtime)
    return (
        COLOURS[runtime % (len(COLOURS) - 1)],
        DASHES[timing.precision],
        MARKERS[list(DASHES).index(timing.precision)],
    )


def _labels(axis: Axes, last: Sequence[Timing], gap: float) -> None:
    """Each line's name and speed right of the axis, beside its last point, moved apart where they would touch."""
    low, high = (math.log10(limit) for limit in axis.get_ylim())
    wanted = [(math.log10(timing.rows_per_second) - low) / (high - low) for timing in last]
    for timing, place in zip(last, apart(wanted, gap), strict=True):
        colour, _, _ = _look(timing)
        axis.annotate(
            printable(f"{timing.contender}  {timing.rows_per_second:,.0f}/s"),
            (timing.batch * ASIDE, timing.rows_per_second),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontsize=WORDS,
            arrowprops=LEADER | {"color": colour},
        )


def apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Places from 0 to 1 in the order of those wanted, each as near to it as its neighbours allow.

    Any two are at least `gap` apart, or where there are too many for that, evenly spread.
    """
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _start(groups[-1], wanted, gap) < _start(groups[-2], wanted, gap) + gap * len(
            groups[-2]
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [0.0] * len(wanted)
    for group in groups:
        for offset, index in enumerate(group):
            places[index] = _start(group, wanted, gap) + offset * gap
    return places


def _start(group: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    """Where a group of neighbours begins: around the mean of what they want, and between 0 and 1."""
    length = gap * (len(group) - 1)
    mean = sum(wanted[index] for index in group) / len(group)
    return min(max(mean - length / 2, 0.0), 1.0 - length)
