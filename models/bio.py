"""Spans of words from BIO labels. No torch: validation and serving read labels by this one rule."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["OUTSIDE", "spans"]

OUTSIDE = "O"


def spans(labels: Sequence[int], names: Sequence[str]) -> list[tuple[int, int, str]]:
    """The labelled spans of one row's words, in order.

    `B-x` starts a span of type x. `I-x` continues a span of type x that ends just before it, and starts one otherwise,
    as CoNLL's evaluation has it (Tjong Kim Sang & De Meulder 2003). A label that is neither `O` nor of these two forms
    is the type of its one word.

    Args:
        labels: of each word, an index into the names.
        names: of the head's labels.

    Returns:
        (first word, end, type) of each span; the end is exclusive, the type without `B-` and `I-`.

    Raises:
        ValueError: a label is none of the names, such as the -1 of a word without one.
    """
    found: list[tuple[int, int, str]] = []
    growing = False  # whether the last span found may go on at this word
    for place, label in enumerate(labels):
        if not 0 <= label < len(names):
            raise ValueError(f"word {place} has label {label} of {len(names)} names: leave out words without a label")
        name = names[label]
        prefix, kind = (name[:2], name[2:]) if name[:2] in ("B-", "I-") and len(name) > 2 else ("", name)
        if prefix == "I-" and growing and found[-1][2] == kind:
            found[-1] = (found[-1][0], place + 1, kind)
        elif name != OUTSIDE:
            found.append((place, place + 1, kind))
        growing = bool(prefix)
    return found
