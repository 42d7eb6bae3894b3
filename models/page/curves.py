"""What changed from epoch to epoch: losses, metrics, weights, learning rates, gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from polyhead.models.page.canvas import COLOURS, GREY, LINES, breadth, columns, figure, ink, printable, short, wrapped

__all__ = ["cosines", "learning", "lines"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

WIDE = 50.0  # a ratio of largest to smallest value from which an axis is logarithmic
NUMBERED = 12  # tasks, up to which a matrix shows its numbers


def learning(
    title: str,
    epochs: Sequence[int],
    losses: Mapping[str, Sequence[float]],
    metrics: Mapping[str, Sequence[float]],
    unit: str = "",
    best: int | None = None,
) -> Figure:
    """A head's losses above, its metrics below.

    Args:
        title: of the figure.
        epochs: their numbers.
        losses: by name, a value per epoch, NaN where there is none.
        metrics: likewise; values on one scale.
        unit: of the metrics.
        best: the epoch whose weights were kept.
    """
    drawn = figure(4.4 if metrics else 2.8, title)
    axes = drawn.subplots(2 if metrics else 1, 1, sharex=True, squeeze=False)[:, 0]
    _lines(axes[0], epochs, losses)
    axes[0].set_ylabel("loss")
    if metrics:
        _lines(axes[1], epochs, metrics, first=2)
        axes[1].set_yscale("linear")
        name = next(iter(metrics)).replace("_", " ") if len(metrics) == 1 else "metric"
        axes[1].set_ylabel(wrapped(f"{name} ({unit})" if unit else name, 18))
    for axis in axes:
        if best is not None:
            axis.axvline(best, color=GREY, linestyle="--", linewidth=1, label=f"best epoch, {best}")
        axis.legend(loc="best")
    axes[-1].set_xlabel("epoch")
    return drawn


def lines(title: str, ylabel: str, epochs: Sequence[int], series: Mapping[str, Sequence[float]]) -> Figure:
    """One line per task, part or group, with a legend below."""
    across = columns([short(name) for name in series])
    drawn = figure(3.0 + 0.2 * math.ceil(len(series) / across), title)
    axis = drawn.subplots()
    _lines(axis, epochs, series)
    axis.set_ylabel(printable(ylabel))
    axis.set_xlabel("epoch")
    drawn.legend(loc="outside lower center", ncols=across)
    return drawn


def cosines(title: str, tasks: Sequence[str], matrix: Array) -> Figure:
    """Cosines between tasks' gradients, `[tasks, tasks]` from -1 to 1, NaN where unknown."""
    count = len(tasks)
    names = [short(task) for task in tasks]
    drawn = figure(min(6.4, 2.2 + 0.3 * count + 0.7 * max(map(breadth, names))), title)
    axis = drawn.subplots()
    image = axis.imshow(matrix, cmap="PuOr", vmin=-1, vmax=1)
    axis.grid(visible=False)
    size = 8 if count <= NUMBERED else 6
    axis.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(range(count), names, fontsize=size)
    axis.set_xlabel("task")
    axis.set_ylabel("task")
    drawn.colorbar(image, ax=axis, label="cosine (below 0: conflict)", shrink=0.75)
    if count <= NUMBERED:
        shades = image.to_rgba(matrix)
        for (row, column), value in np.ndenumerate(matrix):
            if not math.isnan(value):
                colour = ink(shades[row, column])
                axis.text(column, row, f"{value:z.2f}", ha="center", va="center", fontsize=size, color=colour)
    return drawn


def _lines(axis: Axes, epochs: Sequence[int], series: Mapping[str, Sequence[float]], first: int = 0) -> None:
    """Lines told apart by colour, then by dashes; points where there are few, which a line would not show."""
    for index, (name, values) in enumerate(series.items(), start=first):
        dashes = LINES[index // len(COLOURS) % len(LINES)]
        marker = "o" if len(epochs) <= 20 else None
        colour = COLOURS[index % len(COLOURS)]
        axis.plot(epochs, values, color=colour, linestyle=dashes, marker=marker, markersize=3, label=short(name))
    if len(epochs) == 1:
        axis.set_xticks(epochs)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    every = np.array([value for values in series.values() for value in values], dtype=np.float64)
    every = every[np.isfinite(every)]
    if len(every) and every.min() > 0 and every.max() / every.min() > WIDE:
        axis.set_yscale("log")
