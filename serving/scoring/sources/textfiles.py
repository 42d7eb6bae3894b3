"""What CSV and JSON Lines have in common: units are ranges of bytes, each ends with a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.errors import InputChanged, InputUnreadable
from polyhead.serving.scoring.sources.files import Files, Unreadable
from polyhead.serving.scoring.sources.framing import Framing
from polyhead.serving.scoring.sources.lines import BLOCK, Dialect, Lines, blocks
from polyhead.serving.scoring.sources.octets import Octets, compression_of, start_of
from polyhead.serving.scoring.sources.parsed import Parsed
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["Parse", "beginning", "planned", "read", "sample"]

NONE = Lines(b"", np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))

# Lines, of which the first has this number in the unit, to rows.
Parse: TypeAlias = Callable[[int, Lines], Parsed]


def beginning(files: Files, file: InputFile) -> int:
    """Where the text of a file begins: after a byte order mark.

    Raises:
        InputUnreadable: it cannot be read.
    """
    try:
        return start_of(files, file.path)
    except Unreadable as error:
        raise InputUnreadable(f"{error}: is it whole, and of its format?") from None


def sample(files: Files, file: InputFile, dialect: Dialect, start: int | None = None) -> Lines:
    """The first rows of a file, as many as its columns are told by; none where it has none.

    Raises:
        InputUnreadable: it cannot be read.
    """
    octets = Octets(files, file.path, beginning(files, file) if start is None else start)
    try:
        return next((lines for lines in blocks(octets.read, dialect) if lines.rows), NONE)
    except Unreadable as error:
        raise InputUnreadable(f"{error}: is it whole, and of its format?") from None
    finally:
        octets.close()


def planned(files: Files, file: InputFile, start: int, dialect: Dialect, unit_rows: int, ordinal: int) -> list[Unit]:
    """The units of one file.

    Args:
        files: the file's file system.
        file: that is planned; compressed, it is one unit, for it can only be read from its beginning.
        start: the byte where its rows begin.
        dialect: of its rows.
        unit_rows: of one unit; of the last one, what is left.
        ordinal: of the first unit.

    Raises:
        InputUnreadable: it cannot be read to its end.
    """
    octets = Octets(files, file.path, start)
    stops: list[int] = []
    count, last = 0, start
    try:
        for lines in blocks(octets.read, dialect):
            full = np.arange(unit_rows - 1 - count % unit_rows, lines.rows, unit_rows)
            stops += (start + lines.stops[full]).tolist()
            count += lines.rows
            last = start + int(lines.stops[-1]) if lines.rows else last
    except Unreadable as error:
        raise InputUnreadable(f"{error}: is it whole, and of its format?") from None
    finally:
        octets.close()
    if compression_of(file.path) is not None:
        return [Unit(ordinal, (file,), 0, count)] if count else []
    if count % unit_rows:
        stops.append(last)
    begins = [start, *stops][: len(stops)]
    rows = range(0, count, unit_rows)
    return [
        Unit(ordinal + index, (file,), first, min(unit_rows, count - first), (begin, stop))
        for index, (first, begin, stop) in enumerate(zip(rows, begins, stops, strict=True))
    ]


def read(
    files: Files, framing: Framing, unit: Unit, start: int, dialect: Dialect, parse: Parse, chunk: tuple[int, int]
) -> Iterator[Chunk]:
    """The rows of a unit.

    Args:
        files: the file's file system.
        framing: of the job.
        unit: as it was planned.
        start: the byte where the file's rows begin.
        dialect: of its rows.
        parse: the format's.
        chunk: rows and bytes of one chunk, at most.

    Raises:
        InputChanged: it has another number of rows than was planned.
    """
    [file] = unit.files
    begin, end = unit.octets
    whole = compression_of(file.path) is not None
    octets = Octets(files, file.path, start) if whole else Octets(files, file.path, begin, end)
    done = 0
    try:
        for lines in blocks(octets.read, dialect, min(BLOCK, chunk[1])):
            for part in lines.parts(chunk[0]):
                yield framing.finished(parse(done, part))
                done += part.rows
    except Unreadable as error:
        yield from framing.lost(done, unit.rows - done, str(error), chunk[0])
        done = unit.rows
    finally:
        octets.close()
    if done != unit.rows:
        raise InputChanged(
            f"{file.path}: {done} rows where {unit.rows} were planned: put the planned file back, or start a new job"
        )
