"""Bytes of a text file to rows: where each ends, quotes minded, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from polyhead.serving.golden import Array

__all__ = ["BLOCK", "Dialect", "Lines", "blocks"]

BLOCK = 1024 * 1024  # bytes that are looked at together

NEWLINE, RETURN, QUOTE = b"\n"[0], b"\r"[0], b'"'[0]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How rows are written.

    Attributes:
        delimiter: of fields, where quotes keep delimiters and ends of lines in a field; None where a line is a row.
        limit: bytes of one row; a longer one ends with its first line, and what follows are rows again.
    """

    delimiter: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive rows.

    Attributes:
        data: all of them, blank lines between them too.
        starts: where each begins, `int64`; blank lines are no rows.
        ends: where each ends, with what ends it, `int64`.
        stops: where each ends among all that was read, `int64`.
        broken: by row, why it is none.
    """

    data: bytes
    starts: Array
    ends: Array
    stops: Array
    broken: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.starts)

    def parts(self, rows: int) -> Iterator[Lines]:
        """The same rows, so many together at most."""
        if self.rows <= rows:
            yield self
            return
        for first in range(0, self.rows, rows):
            place = slice(first, first + rows)
            broken = {row - first: why for row, why in self.broken.items() if first <= row < first + rows}
            yield Lines(self.data, self.starts[place], self.ends[place], self.stops[place], broken)


def blocks(read: Callable[[int], bytes], dialect: Dialect, block: int = BLOCK) -> Iterator[Lines]:
    """All rows that a file, or a part of one that begins at a row, has.

    Args:
        read: the next bytes, as many as are asked for; fewer at the end alone.
        dialect: of the file.
        block: bytes to look at together, at least.
    """
    data = b""
    over = False
    passed = 0
    while not over or data:
        if not over:
            wanted = max(block, len(data))  # doubled where a row is longer, so that none is looked at over and over
            fresh = read(wanted)
            over = len(fresh) < wanted
            data += fresh
        ends, broken = _cut(data, dialect, over)
        done = int(ends[-1]) if len(ends) else 0
        yield _lines(data[:done], ends, passed, broken, dialect)
        data = data[done:]
        passed += done
        if len(data) > dialect.limit:  # a line whose end is not in sight: what it holds is not kept
            passed += len(data)
            length, data, over = _rest_of_line(read, block)
            passed += length
            nothing = np.zeros(1, np.int64)
            yield Lines(b"", nothing, nothing, np.array([passed]), {0: _too_long(dialect)})


def _rest_of_line(read: Callable[[int], bytes], block: int) -> tuple[int, bytes, bool]:
    """How long it is, what was read after it, and whether that is all there is."""
    length = 0
    while True:
        data = read(block)
        place = data.find(b"\n")
        if place >= 0:
            return length + place + 1, data[place + 1 :], len(data) < block
        length += len(data)
        if len(data) < block:
            return length, b"", True


def _cut(data: bytes, dialect: Dialect, over: bool) -> tuple[Array, dict[int, str]]:
    """Where rows end, as far as can be told; and of those ends, which are of rows that are none."""
    found: list[Array] = []
    count = start = 0
    broken: dict[int, str] = {}
    while start < len(data):
        ends = _ends(data, start, dialect.delimiter, over)
        lengths = np.diff(ends, prepend=start)
        if len(ends) and lengths.max() > dialect.limit:
            ends = ends[: int(np.argmax(lengths > dialect.limit))]
            why = _too_long(dialect)
        elif not over and len(data) - (int(ends[-1]) if len(ends) else start) <= dialect.limit:
            found.append(ends)
            break
        else:
            why = "a quote is opened and never closed" if over else _too_long(dialect)
        found.append(ends)
        count += len(ends)
        start = int(ends[-1]) if len(ends) else start
        if start == len(data):
            break
        place = data.find(b"\n", start)
        if place < 0 and not over:
            break
        start = place + 1 if place >= 0 else len(data)
        broken[count] = why
        found.append(np.array([start]))
        count += 1
    return np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64), broken


def _too_long(dialect: Dialect) -> str:
    return f"a row of more than {dialect.limit} bytes, or a quote that is opened and never closed"


def _ends(data: bytes, start: int, delimiter: int | None, over: bool) -> Array:
    """Where rows end, each with what ends it; the last one may end with the data where nothing follows."""
    octets = np.frombuffer(data, np.uint8)[start:]
    ends: Array = np.flatnonzero(octets == NEWLINE)
    inside = False
    if delimiter is not None:
        if data.find(b"\r", start) >= 0:
            ends = _with_returns(octets, ends, over)
        if data.find(b'"', start) >= 0:
            turns = _turns(octets, delimiter)
            ends = ends[np.searchsorted(turns, ends) % 2 == 0]
            inside = len(turns) % 2 == 1
    ends = ends + 1
    if over and not inside and (not len(ends) or ends[-1] < len(octets)):
        ends = np.append(ends, len(octets))
    return np.asarray(ends + start, np.int64)


def _with_returns(octets: Array, newlines: Array, over: bool) -> Array:
    """Ends of lines, those with a carriage return alone too; one at the very end may have its newline to come."""
    returns = np.flatnonzero(octets == RETURN)
    if not over:
        returns = returns[returns < len(octets) - 1]
    following = octets[np.minimum(returns + 1, len(octets) - 1)]
    alone = returns[following != NEWLINE]
    return np.sort(np.concatenate([newlines, alone])) if len(alone) else newlines


def _turns(octets: Array, delimiter: int) -> Array:
    """Quotes that open or close, in turns.

    One opens where a field begins, and right after one that closed: two of them are a quote in the text. Any other,
    outside of quotes, is a character as all others are. So does Python's csv.
    """
    places = np.flatnonzero(octets == QUOTE)
    before = octets[places - 1]
    opens = (before == delimiter) | (before == NEWLINE) | (before == RETURN) | (places == 0)
    again = np.diff(places, prepend=-2) == 1
    if (opens | again)[::2].all():
        return places
    turns: list[int] = []
    closed = -2
    for place, first in zip(places.tolist(), opens.tolist(), strict=True):
        if len(turns) % 2:
            closed = place
            turns.append(place)
        elif first or place == closed + 1:
            turns.append(place)
    return np.array(turns, np.int64)


def _lines(data: bytes, ends: Array, passed: int, broken: dict[int, str], dialect: Dialect) -> Lines:
    """Without the lines that are blank."""
    starts = np.concatenate([np.zeros(min(len(ends), 1), np.int64), ends[:-1]])
    octets = np.frombuffer(data, np.uint8)
    lengths = ends - starts
    blank = np.zeros(len(ends), bool)
    short = np.flatnonzero(lengths <= 2)
    if len(short):
        first, last = octets[starts[short]], octets[ends[short] - 1]
        ended = (last == NEWLINE) | ((last == RETURN) & (dialect.delimiter is not None))
        blank[short] = ended & ((lengths[short] == 1) | (first == RETURN))
    if not blank.any():
        return Lines(data, starts, ends, ends + passed, broken)
    places = np.cumsum(~blank) - 1
    ends = ends[~blank]
    return Lines(data, starts[~blank], ends, ends + passed, {int(places[row]): why for row, why in broken.items()})
