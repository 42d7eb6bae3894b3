"""Figures as a run's page wants them: one style, texts that every font can draw, pixels out. No global state is left.

Colours are those of Okabe & Ito 2008, "Color universal design", which people with any colour vision tell apart.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.image import imsave

__all__ = [
    "COLOURS",
    "GREY",
    "LINES",
    "MARKERS",
    "breadth",
    "columns",
    "figure",
    "ink",
    "pixels",
    "png",
    "printable",
    "short",
    "styled",
    "wrapped",
]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 6.4  # inches
DPI = 120
SIZE = 8  # points, of names
NAME = 1.7  # inches of a name in a plot
LINE = 72  # letters of a title
LEADING = 0.2  # inches from line to line of it

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # Matplotlib ships it, so every machine draws the same
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": SIZE,
    "figure.constrained_layout.use": True,
    "image.interpolation": "nearest",
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures drawn inside look as the page wants them, whatever the user's own settings of Matplotlib are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def figure(height: float, title: str = "") -> Figure:
    """An empty figure of a plot's width under its title; the height is in inches, without that of a title's lines."""
    text = wrapped(title)
    drawn = Figure(figsize=(WIDTH, height + LEADING * (text.count("\n") + 1 if text else 0)), dpi=DPI)
    if text:
        drawn.suptitle(text, x=0.01, ha="left")
    return drawn


def pixels(drawn: Figure) -> Array:
    """The figure as `uint8 [height, width, 3]`."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def png(image: Array) -> bytes:
    """Pixels `uint8 [height, width, 3]` as a PNG file; the same pixels give the same bytes."""
    data = io.BytesIO()
    imsave(data, image, format="png", metadata={"Software": "Polyhead"})
    return data.getvalue()


def ink(background: Array) -> str:
    """The colour of text on a background of red, green, blue from 0 to 1: black, or white on a dark one."""
    red, green, blue = background[:3].tolist()
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def columns(names: Sequence[str]) -> int:
    """How many columns of a legend with these names fit into a figure's width."""
    widest = max(map(breadth, names), default=0.0)
    return max(1, min(len(names), int(WIDTH / (widest + 0.65))))  # with the mark and the gap between columns


def wrapped(text: str, letters: int = LINE) -> str:
    """A drawable text on several lines where it is long."""
    return "\n".join(wrap(printable(text), letters))


def printable(text: str) -> str:
    """A text that can be drawn: `U+1F600` for a character the font lacks, and no formulas between dollar signs."""
    return "".join(map(_drawn, text))


def short(text: str, limit: float = NAME) -> str:
    """A drawable name of at most so many inches; a longer one loses its middle, for ends are what tells names apart."""
    characters = [_drawn(character) for character in text]
    if breadth("".join(characters)) <= limit:
        return "".join(characters)
    head = _fitting(characters, limit * 0.6)
    tail = _fitting(characters[::-1], limit * 0.3)[::-1]
    return "".join([*head, "…", *tail])


@functools.cache
def breadth(text: str) -> float:
    """How wide a text of a name's size is, in inches."""
    font = _font()
    font.set_size(SIZE, 72)
    font.set_text(text.replace(r"\$", "$"))
    return float(font.get_width_height()[0] / 64 / 72)  # of 64 to a pixel, of 72 to an inch


def _fitting(characters: Sequence[str], limit: float) -> list[str]:
    """As many of the first characters as have room."""
    count = next((i for i in range(len(characters)) if breadth("".join(characters[: i + 1])) > limit), len(characters))
    return list(characters[:count])


@functools.cache
def _drawn(character: str) -> str:
    if ord(character) in _charmap():
        return r"\$" if character == "$" else character
    shapeless = unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc")
    return "" if shapeless else f"U+{ord(character):04X}"


@functools.cache
def _font() -> FT2Font:
    return FT2Font(str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))


@functools.cache
def _charmap() -> frozenset[int]:
    return frozenset(_font().get_charmap())
