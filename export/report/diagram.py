"""The diagram of a model: inputs, then the trunk, then the heads; bars show each part's share of the whole."""

from __future__ import annotations

from collections.abc import Sequence

from polyhead.export.report.parts import Measure, Piece, percent
from polyhead.export.report.svg import WIDTH, bar, drawing, element, joined, label, shortened
from polyhead.models.inputs import ImageInput, InputSpec, TextInput
from polyhead.models.markup import Markup
from polyhead.models.spec import ModelSpec

__all__ = ["diagram", "takes"]

MANY = 12  # heads, from which on each has one bar alone
INSET = 26  # of the heads
EDGE = 10  # from a box to what is in it
GAP = 8  # between boxes
LINE = 15  # from bar to bar
HEADING = 38  # of a box: two lines of text
SHORT = 36  # a box of one bar alone
BARS = 116  # where all bars begin
SPAN = 114  # of a bar
THICK = 8
LETTERS = 40  # of a name


def diagram(spec: ModelSpec, pieces: Sequence[Piece], measures: Sequence[Measure]) -> Markup:
    """A figure. Where the parts were not told apart, their boxes have no bars.

    Args:
        spec: of the model.
        pieces: the trunk first where there is one, then the heads.
        measures: what is known of them.
    """
    drawn, bottom = _inputs(spec)
    heads = [(index, piece) for index, piece in enumerate(pieces) if piece.head is not None]
    if len(heads) < len(pieces) or not measures:
        top = bottom + 2 * GAP
        arrow = _arrow(bottom, top)
        trunk, bottom = _trunk(top, pieces, measures)
        drawn = joined(drawn, arrow, trunk)
    below, bottom = _heads(bottom, heads, measures)
    shown = drawing("Trunk and heads", _words(spec, pieces, measures), bottom + 1, drawn, below)
    return joined(Markup("<figure>"), shown, _caption(heads, measures), Markup("</figure>"))


def _caption(heads: Sequence[object], measures: Sequence[Measure]) -> Markup:
    if not measures:
        return Markup()
    alone = f"; of the heads, that of {measures[-1].name} alone" if len(heads) > MANY else ""
    return element("figcaption", f"Bars show each part's share of the whole{alone}.")


def takes(spec: InputSpec) -> str:
    """What an input takes, in a few words."""
    match spec:
        case ImageInput():
            return f"{spec.size[0]} x {spec.size[1]} pixels, {spec.channels}"
        case TextInput():
            return f"text of at most {spec.max_length} tokens"
        case _:
            return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _inputs(spec: ModelSpec) -> tuple[Markup, float]:
    """The inputs' box, and where it ends."""
    height = 18 + 16 * len(spec.inputs)
    lines = []
    for place, (name, value) in enumerate(spec.inputs.items()):
        text = f"{name}: {takes(value)}"
        lines.append(label(shortened(text, LETTERS), EDGE, 21 + 16 * place, full=text))
    kind = label("inputs" if len(spec.inputs) > 1 else "input", WIDTH - EDGE, 21, "quiet", end=True)
    return joined(_box(0, 1, height, "input"), kind, *lines), 1 + height


def _trunk(top: float, pieces: Sequence[Piece], measures: Sequence[Measure]) -> tuple[Markup, float]:
    """The trunk's box, and where it ends; one without bars for a network that was not told apart."""
    if pieces[0].head is not None:
        heading = _heading("network", "its parts were not told apart", 0, top)
        return joined(_box(0, top, HEADING, "trunk"), heading), top + HEADING
    height = _height(measures)
    return joined(_box(0, top, height, "trunk"), _full(0, top, 0, pieces[0], measures)), top + height


def _heads(top: float, heads: Sequence[tuple[int, Piece]], measures: Sequence[Measure]) -> tuple[Markup, float]:
    """The heads' boxes on their stem, and where they end."""
    many = len(heads) > MANY
    shown = measures[-1:] if many else measures
    height = SHORT if many else _height(shown)
    drawn, end = [], top
    for index, piece in heads:
        end += GAP
        middle = end + height / 2
        drawn.append(element("path", d=f"M{INSET / 2:g} {middle:g}H{INSET:g}", class_="wire"))
        drawn.append(_box(INSET, end, height, "head"))
        drawn.append(_compact(end, index, piece, shown) if many else _full(INSET, end, index, piece, shown))
        end += height
    return joined(element("path", d=f"M{INSET / 2:g} {top:g}V{end - height / 2:g}", class_="wire"), *drawn), end


def _height(measures: Sequence[Measure]) -> float:
    return HEADING + LINE * len(measures) + (4 if measures else 0)


def _full(left: float, top: float, index: int, piece: Piece, measures: Sequence[Measure]) -> Markup:
    drawn = [_heading(piece.title, piece.about, left, top)]
    for place, measure in enumerate(measures):
        y = top + HEADING + LINE * place
        drawn.append(label(measure.name, left + EDGE, y + 10, "quiet"))
        drawn.append(bar(measure.kind, (BARS, y + 2), (SPAN, THICK), measure.share(index) or 0.0))
        drawn.append(label(_figure(measure, index), WIDTH - EDGE, y + 10, "figure", end=True))
    return joined(*drawn)


def _compact(top: float, index: int, piece: Piece, measures: Sequence[Measure]) -> Markup:
    drawn = [label(shortened(piece.title, LETTERS - 18), INSET + EDGE, top + 16, "name", full=piece.title)]
    size = (WIDTH - INSET - 2 * EDGE, THICK)
    for measure in measures:
        drawn.append(label(_figure(measure, index), WIDTH - EDGE, top + 16, "figure", end=True))
        drawn.append(bar(measure.kind, (INSET + EDGE, top + 22), size, measure.share(index) or 0.0))
    return joined(*drawn)


def _figure(measure: Measure, index: int) -> str:
    return f"{measure.written(measure.values[index])}, {percent(measure.share(index))}"


def _heading(title: str, about: str, left: float, top: float) -> Markup:
    name = label(shortened(title, LETTERS - 4), left + EDGE, top + 17, "name", full=title)
    return joined(name, label(about, left + EDGE, top + 31, "quiet"))


def _box(left: float, top: float, height: float, kind: str) -> Markup:
    return element("rect", x=left + 1, y=top, width=WIDTH - left - 2, height=height, rx=6, class_=f"box {kind}")


def _arrow(start: float, end: float) -> Markup:
    x = WIDTH / 2
    return element("path", d=f"M{x:g} {start:g}V{end - 1:g}m-4 -5l4 5l4 -5", class_="wire")


def _words(spec: ModelSpec, pieces: Sequence[Piece], measures: Sequence[Measure]) -> str:
    """The drawing for those who do not see it; the table beside it holds every figure."""
    said = [f"Inputs {', '.join(spec.inputs)}"]
    for index, piece in enumerate(pieces):
        shares = [f"{percent(measure.share(index))} of {measure.name}" for measure in measures]
        said.append(f"{'head ' if piece.head else ''}{piece.title}{': ' if shares else ''}{', '.join(shares)}")
    return "; ".join(said)
