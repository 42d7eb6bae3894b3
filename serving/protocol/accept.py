"""`Accept`: which of the formats that an answer can have is the one that a client wants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from polyhead.serving.errors import NotAcceptable

__all__ = ["ARROW", "HEADER", "JSON", "NPY", "OCTETS", "PLAIN", "choose"]

HEADER = "accept"
JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
NPY = "application/x-npy"
OCTETS = "application/octet-stream"  # tensors of the Open Inference Protocol
# What most clients send, and what needs no look at anything else: JSON.
PLAIN = frozenset((None, "", "*/*", JSON))


def choose(accept: str | None, offers: Sequence[str]) -> str:
    """The media type of the answer.

    The greatest q-value wins, then the type that is named over one that a wildcard stands for, then the first named.

    Args:
        accept: the header; None takes anything.
        offers: media types that the answer can have, the server's favourite first.

    Raises:
        NotAcceptable: naming what there is.
    """
    if not accept:
        return offers[0]
    # A type takes the q-value of the closest range that stands for it: `*/*;q=1, text/csv;q=0` is anything but CSV.
    found = [(match, offer) for offer in offers if (match := _closest(accept, offer)) is not None and match[0] > 0]
    if not found:
        raise NotAcceptable(f"Accept: {accept:.100} is none of what this can be answered in: {', '.join(offers)}")
    return max(found, key=lambda pair: pair[0])[1]


def _closest(accept: str, offer: str) -> tuple[float, int, int] | None:
    """The q-value, closeness and (negative) place of the range that says most about a media type."""
    matches = [
        (closeness, quality, -place)
        for place, (name, quality) in enumerate(_ranges(accept))
        for closeness, pattern in enumerate(("*/*", f"{offer.partition('/')[0]}/*", offer))
        if name == pattern
    ]
    if not matches:
        return None
    closeness, quality, place = max(matches)
    return quality, closeness, place


@lru_cache(256)
def _ranges(accept: str) -> tuple[tuple[str, float], ...]:
    """The media ranges of a header with their q-values; one whose q-value is no number is not wanted."""
    ranges = []
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [value for key, _, value in (p.partition("=") for p in parameters) if key.strip() == "q"]
        ranges.append((name, _quality(weights[0].strip()) if weights else 1.0))
    return tuple(ranges)


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
