"""Drawings as SVG inside a page: elements, bars, and names that fit. Colours are the page's, by class."""

from __future__ import annotations

from polyhead.models.markup import Markup, written

__all__ = ["WIDTH", "bar", "drawing", "element", "joined", "label", "shortened"]

WIDTH = 360  # units of a drawing: pixels on a phone, where it takes the whole width
LEAST = 1.0  # a bar of something is seen


def element(tag: str, *inside: str, **attributes: str | float) -> Markup:
    """An element; texts inside are escaped, markup is not. `text_anchor` is written text-anchor, `class_` class."""
    named = {name.rstrip("_").replace("_", "-"): _number(value) for name, value in attributes.items()}
    opened = "".join(f' {name}="{written(value)}"' for name, value in named.items())
    return Markup(f"<{tag}{opened}>{joined(*inside)}</{tag}>")


def joined(*parts: str) -> Markup:
    """One behind the other; texts among them are escaped."""
    return Markup("".join(map(written, parts)))


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def drawing(title: str, words: str, height: float, *inside: Markup) -> Markup:
    """A drawing of the page's width; a screen reader says its title, and the whole in words."""
    return element(
        "svg",
        *inside,
        viewBox=f"0 0 {WIDTH} {_number(height)}",
        role="img",
        aria_label=f"{title}. {words}",
    )


def label(text: str, x: float, y: float, kind: str = "", end: bool = False, full: str = "") -> Markup:
    """A line of text from x on, or to it; where it is shortened, `full` is what a pointer shows."""
    anchored: dict[str, str | float] = {"text_anchor": "end"} if end else {}
    classed: dict[str, str | float] = {"class_": kind} if kind else {}
    tip = (element("title", full),) if full and full != text else ()
    return element("text", *tip, text, x=x, y=y, **classed, **anchored)


def bar(kind: str, place: tuple[float, float], size: tuple[float, float], share: float) -> Markup:
    """A bar on its track.

    Args:
        kind: the class that colours it.
        place: left, top.
        size: of the track: width, height.
        share: of it, from 0 to 1.
    """
    (x, y), (width, height) = place, size
    filled = 0.0 if share <= 0 else max(LEAST, width * min(share, 1.0))
    return joined(
        element("rect", x=x, y=y, width=width, height=height, rx=2, class_="track"),
        element("rect", x=x, y=y, width=filled, height=height, rx=min(2, filled / 2), class_=kind),
    )


def shortened(name: str, letters: int) -> str:
    """A name of at most so many letters; a longer one loses its middle, for ends are what tells names apart."""
    if len(name) <= letters:
        return name
    tail = letters // 3
    return f"{name[: letters - tail - 1]}…{name[len(name) - tail :]}"
