"""What the trunk and each head cost: parameters, operations, milliseconds; drawn and in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from polyhead.export.report.diagram import diagram
from polyhead.export.report.parts import Measure, Piece, measures, milliseconds, percent, pieces
from polyhead.export.report.times import Times
from polyhead.models.markup import Markup, paragraph, table
from polyhead.serving.manifest import Manifest

__all__ = ["costs"]


def costs(manifest: Manifest, times: Times | None) -> Markup:
    """The drawing, every figure of it, and how the milliseconds came to be.

    Args:
        manifest: the bundle's, which holds parameters and operations.
        times: of the parts on this machine; None where they were not measured.
    """
    found = pieces(manifest)
    known = measures(manifest, found, times)
    drawn = diagram(manifest.spec, found, known)
    listed = _listed(found, known) if known else Markup()
    said_of = paragraph(" ".join(_of_times(manifest, times)))
    return Markup(f'<div class="plots">{drawn}<div class="beside">{listed}{said_of}</div></div>')


def _listed(found: Sequence[Piece], known: Sequence[Measure]) -> Markup:
    """Every figure of the drawing, with sums."""
    rows = [(piece.title, *(_cost(measure, index) for measure in known)) for index, piece in enumerate(found)]
    rows.append(("sum", *(measure.written(measure.total) for measure in known)))
    names = ("part", *(measure.name for measure in known))
    return table(names, rows, "What the parts cost, and their share of the sum", values=len(known))


def _cost(measure: Measure, index: int) -> Markup:
    return Markup(
        f"{escape(measure.written(measure.values[index]))}<small>{escape(percent(measure.share(index)))}</small>"
    )


def _of_times(manifest: Manifest, times: Times | None) -> Iterator[str]:
    """How the milliseconds came to be, or why there are none."""
    if times is None:
        yield "No milliseconds: they were not measured for this page."
    elif times.parts:
        yield "Each part was timed by itself, as a graph of its own: the heads on what the trunk had returned."
    if times is not None and times.whole:
        each = ", ".join(f"{milliseconds(seconds)} at batch {batch}" for batch, seconds in times.whole.items())
        yield f"The fused graph, trunk and all heads in one: {each}."
    if times is not None:
        threads = f"{times.threads} thread{'' if times.threads == 1 else 's'}"
        yield f"Medians of runs that took turns, in ONNX Runtime on {times.machine}, {threads}."
    if not any(graph.part == "trunk" for graph in manifest.graphs):
        yield f"The parts have no graphs of their own: {manifest.unsplit or 'the bundle was written without them'}."
