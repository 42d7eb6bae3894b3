"""Rows to units: what belongs together on disk is kept together, what is too large is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["spans"]


def spans(groups: Sequence[int], unit_rows: int) -> Iterator[tuple[int, int]]:
    """The first row and the number of rows of each unit.

    Args:
        groups: rows of each row group, record batch or the like, in order.
        unit_rows: of one unit, about: groups are gathered while they are no more together, and a group of half as
            many again is cut into equal parts.
    """
    first = gathered = 0
    for rows in groups:
        if gathered and gathered + rows > unit_rows:
            yield first, gathered
            first, gathered = first + gathered, 0
        if rows >= unit_rows * 1.5:
            parts = round(rows / unit_rows)
            for part in range(parts):
                start, end = rows * part // parts, rows * (part + 1) // parts
                yield first + start, end - start
            first += rows
        else:
            gathered += rows
    if gathered:
        yield first, gathered
