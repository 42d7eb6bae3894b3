"""How a head did on held-out rows, drawn: one plot per kind of head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from polyhead.models.page.canvas import COLOURS, GREY, MARKERS, breadth, columns, figure, ink, printable, short

__all__ = ["bars", "confusion_matrix", "masks", "regression", "vectors"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

NUMBERED = 20  # labels, up to which a confusion matrix shows its counts
NAMED = 40  # labels, up to which it shows their names
BARS = 30  # labels that a bar chart has room for
CLASSES = 20  # in a legend
CLASS_NAME = 1.0  # inches there
UNKNOWN = "#dddddd"  # pixels without a label


def confusion_matrix(title: str, counts: Array, labels: Sequence[str]) -> Figure:
    """Counts `int [labels, labels]` of true (rows) by predicted (columns) labels, coloured by share of the row."""
    count = len(labels)
    names = [short(label) for label in labels]
    drawn = figure(min(6.4, 2.4 + 0.26 * count + 0.7 * max(map(breadth, names))), title)
    axis = drawn.subplots()
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.grid(visible=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    drawn.colorbar(image, ax=axis, label="share of the true label's rows", shrink=0.75)
    if count <= NAMED:
        size = 8 if count <= NUMBERED else 5.5
        axis.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axis.set_yticks(range(count), names, fontsize=size)
    else:
        axis.set_xlabel("predicted label's index")
        axis.set_ylabel("true label's index")
    if count <= NUMBERED:
        shades = image.to_rgba(shares)
        for (row, column), value in np.ndenumerate(counts):
            if value:
                colour = ink(shades[row, column])
                size = max(5.0, 9 - count / 5)
                axis.text(column, row, str(value), ha="center", va="center", fontsize=size, color=colour)
    return drawn


def bars(title: str, xlabel: str, scores: dict[str, Array], labels: Sequence[str], support: Array | None) -> Figure:
    """Horizontal bars from 0 to 1 per label, one for each named score; the `BARS` lowest of the last score.

    Args:
        title: of the figure.
        xlabel: what is measured.
        scores: by name, float `[labels]`; NaN has no bar.
        labels: their names.
        support: how often each label was true, int `[labels]`; shown behind the names.
    """
    last = list(scores.values())[-1]
    chosen = np.arange(len(labels))
    if len(labels) > BARS:
        chosen = np.sort(np.argsort(last, kind="stable")[:BARS])  # NaN sorts last
        title = f"{title}; the {BARS} lowest of {len(labels)}"
    drawn = figure(1.4 + len(chosen) * (0.16 + 0.13 * len(scores)), title)
    axis = drawn.subplots()
    height = 0.8 / len(scores)
    places = np.arange(len(chosen))
    for index, (name, values) in enumerate(scores.items()):
        offsets = places + (index - (len(scores) - 1) / 2) * height
        found = np.nan_to_num(values[chosen], nan=0.0)
        axis.barh(offsets, found, height=height * 0.9, color=COLOURS[index], label=name)
    for place, value in zip(places, last[chosen], strict=True):
        text = "none" if np.isnan(value) else f"{value:.2f}"
        offset = place + (len(scores) - 1) / 2 * height
        axis.text(0.0 if np.isnan(value) else value, offset, f" {text}", va="center", fontsize=7, color="#333333")
    names = [short(labels[i]) + ("" if support is None else f" ({support[i]})") for i in chosen.tolist()]
    axis.set_yticks(places, names, fontsize=8)
    axis.set_ylim(len(chosen) - 0.4, -0.6)
    axis.set_xlim(0, 1.1)
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(xlabel)
    axis.set_ylabel("label" if support is None else "label (times true)")
    if len(scores) > 1:
        drawn.legend(loc="outside lower center", ncols=len(scores))
    return drawn


def regression(title: str, predicted: Array, true: Array, unit: str) -> Figure:
    """Predicted over true values, both float `[rows, dim]`, NaN where unknown, with the line where they agree."""
    drawn = figure(4.6, title)
    axis = drawn.subplots()
    several = predicted.shape[1] > 1
    for column in range(predicted.shape[1]):
        colour, marker = _look(column)
        name = f"value {column}" if several else None
        axis.scatter(
            true[:, column], predicted[:, column], s=12, alpha=0.5, color=colour, marker=marker, lw=0, label=name
        )
    everything = np.concatenate([predicted.ravel(), true.ravel()])
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    margin = (high - low) * 0.05 or 1.0
    axis.plot([low - margin, high + margin], [low - margin, high + margin], color=GREY, lw=1, ls="--", label="y = x")
    axis.set_xlim(low - margin, high + margin)
    axis.set_ylim(low - margin, high + margin)
    axis.set_aspect("equal")
    suffix = printable(f" ({unit})") if unit else ""
    axis.set_xlabel(f"true value{suffix}")
    axis.set_ylabel(f"predicted value{suffix}")
    if predicted.shape[1] <= CLASSES:
        axis.legend(loc="upper left")
    return drawn


def vectors(title: str, points: Array, shares: Array, classes: Array, names: Sequence[str]) -> Figure:
    """Vectors by class in two dimensions.

    Args:
        title: of the figure.
        points: `[rows, 2]`.
        shares: of the variance along each, `[2]`.
        classes: index of each row's class into `names`, int `[rows]`.
        names: of the classes.
    """
    present = np.unique(classes)
    named = len(present) <= CLASSES
    across = columns([short(names[kind], CLASS_NAME) for kind in present])
    drawn = figure(4.2 + (0.2 * math.ceil(len(present) / across) if named else 0), title)
    axis = drawn.subplots()
    for kind in present:
        colour, marker = _look(int(kind))
        own = classes == kind
        axis.scatter(
            points[own, 0],
            points[own, 1],
            s=14,
            alpha=0.7,
            color=colour,
            marker=marker,
            lw=0,
            label=short(names[kind], CLASS_NAME),
        )
    axis.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axis.set_ylabel(f"second principal component ({shares[1]:.0%})")
    if named:
        drawn.legend(loc="outside lower center", ncols=across)
    return drawn


def masks(title: str, images: Array, true: Array, predicted: Array, labels: Sequence[str]) -> Figure:
    """A few images beside their true and predicted masks.

    Args:
        title: of the figure.
        images: `uint8 [rows, height, width, channels]`, one channel or red, green, blue.
        true: label indices `[rows, height, width]`, -1 where missing.
        predicted: likewise.
        labels: their names.
    """
    named = len(labels) <= CLASSES
    tall = 2.0 * min(1.5, images.shape[1] / images.shape[2])
    across = columns([short(label) for label in labels])
    drawn = figure(0.7 + (0.1 + tall) * len(images) + (0.2 * math.ceil(len(labels) / across) if named else 0), title)
    grid = drawn.subplots(len(images), 3, squeeze=False)
    colours = _palette(len(labels))
    shades = ListedColormap([UNKNOWN, *colours])
    norm = BoundaryNorm(np.arange(-1.5, len(labels)), shades.N)
    for row, (image, wanted, found) in enumerate(zip(images, true, predicted, strict=True)):
        grid[row, 0].imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
        grid[row, 1].imshow(wanted, cmap=shades, norm=norm)
        grid[row, 2].imshow(found, cmap=shades, norm=norm)
    for axis in grid.flat:
        _bare(axis)
    for axis, name in zip(grid[0], ("image", "true", "predicted"), strict=True):
        axis.set_title(name, loc="center")
    if named:
        patches = [Patch(color=colour, label=short(name)) for colour, name in zip(colours, labels, strict=True)]
        drawn.legend(handles=patches, loc="outside lower center", ncols=across)
    return drawn


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of the index-th class."""
    return COLOURS[index % len(COLOURS)], MARKERS[index // len(COLOURS) % len(MARKERS)]


def _palette(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return list(colormaps["viridis"](np.linspace(0, 1, count)))
