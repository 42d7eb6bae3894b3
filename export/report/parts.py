"""The trunk and the heads with what each costs, and its share of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polyhead.export.report.times import Times
from polyhead.models.markup import rounded, said
from polyhead.models.spec import HeadSpec, Labelled, OneShotHead, RegressionHead
from polyhead.serving.manifest import Manifest

__all__ = ["Measure", "Piece", "about", "measures", "milliseconds", "percent", "pieces"]

TRUNK = "trunk"


@dataclass(frozen=True)
class Measure:
    """Something that every part has more or less of.

    Attributes:
        name: as a drawing says it.
        kind: the class that colours it.
        values: by piece, in their order; None where it is not known.
        unit: `ms`, or "" of a count.
    """

    name: str
    kind: str
    values: tuple[float | None, ...]
    unit: str = ""

    @property
    def total(self) -> float:
        """Over the pieces that are known."""
        return sum(value for value in self.values if value is not None)

    def share(self, index: int) -> float | None:
        """Of one piece, from 0 to 1; None where it is not known."""
        value = self.values[index]
        return None if value is None else value / self.total if self.total else 0.0

    def written(self, value: float | None) -> str:
        """A value with its unit."""
        if value is None:
            return "–"
        return milliseconds(value) if self.unit else rounded(value)


@dataclass(frozen=True)
class Piece:
    """The trunk, or a head.

    Attributes:
        name: of the part in the manifest, `trunk` or `heads/<head>`.
        head: None of the trunk.
        about: its kind and what it returns, in words.
    """

    name: str
    head: str | None
    about: str

    @property
    def title(self) -> str:
        """`trunk`, or the head's own name."""
        return self.head or TRUNK


def pieces(manifest: Manifest) -> list[Piece]:
    """The trunk, where the network has one that can be told apart, and every head in the spec's order."""
    shared = [Piece(TRUNK, None, "shared by all heads, runs once")] if TRUNK in manifest.parts else []
    return shared + [Piece(f"heads/{name}", name, about(head)) for name, head in manifest.spec.heads.items()]


def measures(manifest: Manifest, found: Sequence[Piece], times: Times | None) -> list[Measure]:
    """What is known of the pieces: parameters, operations, milliseconds by batch."""
    known = [manifest.parts.get(piece.name) for piece in found]
    counted = [
        Measure("parameters", "parameters", tuple(None if part is None else part.parameters for part in known)),
        Measure("FLOPs a row", "flops", tuple(None if part is None else part.flops for part in known)),
    ]
    batches = [] if times is None else sorted({batch for values in times.parts.values() for batch in values})
    for batch in batches:
        assert times is not None
        seconds = tuple(times.parts.get(piece.name, {}).get(batch) for piece in found)
        counted.append(Measure(f"ms, batch {batch}", "time", seconds, "ms"))
    return [measure for measure in counted if any(value is not None for value in measure.values)]


def about(head: HeadSpec) -> str:
    """A head's kind and what it returns."""
    match head:
        case OneShotHead():
            return f"{head.kind}, {head.dim} numbers"
        case Labelled():
            return f"{head.kind}, {said(len(head.labels))} label{'s' if len(head.labels) > 1 else ''}"
        case RegressionHead():
            return f"{head.kind}, {said(head.dim)} value{'s' if head.dim > 1 else ''}"
        case _:
            return f"{head.kind}, {head.dim} numbers"


def milliseconds(seconds: float) -> str:
    """Three digits, two of what is small: `0.0059 ms`, `0.127 ms`, `4.57 ms`, `1230 ms`."""
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms" if value >= 0.1 else f"{value:.2g} ms"


def percent(share: float | None) -> str:
    """`97.3 %`; more digits below one, so that what is small is not nothing."""
    if share is None:
        return "–"
    value = 100 * share
    digits = f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}" if value >= 0.01 else "< 0.01"
    return f"{digits} %"
