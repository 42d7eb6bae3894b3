"""JSON Lines: one object a line; the model's inputs as JSON has them, all else by the types that the plan froze."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from polyhead.serving.golden import Array
from polyhead.serving.scoring.chunks import Chunk, Column
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.sources import textfiles
from polyhead.serving.scoring.sources.files import Files
from polyhead.serving.scoring.sources.framing import Framing
from polyhead.serving.scoring.sources.jsonvalues import inferred, typed, written
from polyhead.serving.scoring.sources.lines import Dialect, Lines
from polyhead.serving.scoring.sources.listing import Listing
from polyhead.serving.scoring.sources.parsed import Parsed, table_of
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["JsonLinesSource", "json_rows", "json_schema"]

# An integer of more than 64 bits, of which orjson makes a float, has at least so many digits; they are looked for with
# all digits made one, which is several times faster than a regular expression.
LONG, ONE_DIGIT = b"0" * 20, bytes.maketrans(b"123456789", b"0" * 9)
LIMIT = 16 * 1024 * 1024  # bytes of a row, while the columns are told


def json_schema(files: Files, file: InputFile) -> pa.Schema:
    """The columns of a file: the keys of the rows in its first megabyte, and the types of their values.

    Raises:
        InputUnreadable: it cannot be read.
    """
    lines = textfiles.sample(files, file, Dialect(None, LIMIT))
    _, _, objects, _ = _objects(lines)
    names = dict.fromkeys(name for row in objects for name in row)
    return pa.schema([inferred(name, [row.get(name) for row in objects]) for name in names])


def json_rows(files: Files, file: InputFile) -> int:
    """How many rows tell the columns of a file.

    Raises:
        InputUnreadable: it cannot be read.
    """
    return textfiles.sample(files, file, Dialect(None, LIMIT)).rows


def _objects(lines: Lines) -> tuple[Array, list[dict[str, Any]], list[dict[str, Any]], dict[int, Fault]]:
    """The lines that are objects: their places, what they hold as HTTP has it, and exactly; and why others are none."""
    view = memoryview(lines.data)
    broken = {row: Fault(row, "read", "malformed_row", why) for row, why in lines.broken.items()}
    places: list[int] = []
    objects: list[dict[str, Any]] = []
    exact: list[dict[str, Any]] = []
    for row, (start, end) in enumerate(zip(lines.starts.tolist(), lines.ends.tolist(), strict=True)):
        if row in broken:
            continue
        try:
            value = _value(view[start:end])
            line = bytes(view[start:end])
            whole = _exact(line) if LONG in line.translate(ONE_DIGIT) else value
        except ValueError as error:
            broken[row] = _unreadable(row, bytes(view[start:end]), error)
            continue
        if isinstance(value, dict):
            places.append(row)
            objects.append(value)
            exact.append(whole)
        else:
            message = f"a line that is no JSON object: {orjson.dumps(value).decode()!r:.60}"
            broken[row] = Fault(row, "read", "malformed_row", message)
    return np.array(places, np.int64), objects, exact, broken


def _value(line: memoryview) -> Any:
    """A line's value. NaN and Infinity, which Python writes and JSON has not, are read: the model refuses its own."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        data = bytes(line)
        if b"NaN" not in data and b"Infinity" not in data:
            raise
    return _exact(data)


def _exact(data: bytes) -> Any:
    """A line's value with integers of any size."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unreadable(row: int, line: bytes, error: ValueError) -> Fault:
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        return Fault(row, "read", "not_utf8", f"a line that is not UTF-8 (byte {fault.start}): mend it")
    why = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
    return Fault(row, "read", "malformed_row", f"a line that is no JSON ({why:.100})")


class JsonLinesSource:
    """Files of JSON Lines.

    Args:
        files: their file system.
        framing: of the job.
        listing: where it plans.
    """

    def __init__(self, files: Files, framing: Framing, listing: Listing | None = None) -> None:
        self.files = files
        self.framing = framing
        self.listing = listing
        self.dialect = Dialect(None, framing.reading.max_row_bytes)
        self.parse = _Parsing(framing.reading, framing.filtered)

    def plan(self, unit_rows: int) -> list[Unit]:
        """As `Source.plan`."""
        assert self.listing is not None  # of the driver, which opened the input
        units: list[Unit] = []
        for file in self.listing.files:
            start = textfiles.beginning(self.files, file)
            units += textfiles.planned(self.files, file, start, self.dialect, unit_rows, len(units))
        return units

    def read(self, unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """As `Source.read`."""
        self.files.require(unit.files)
        start = 0 if unit.octets[1] else textfiles.beginning(self.files, unit.files[0])
        chunk = (chunk_rows, chunk_bytes)
        return textfiles.read(self.files, self.framing, unit, start, self.dialect, self.parse, chunk)


class _Parsing:
    """Lines to rows."""

    def __init__(self, reading: Reading, filtered: Sequence[str]) -> None:
        self.reading = reading
        self.filtered = frozenset(filtered)

    def __call__(self, first: int, lines: Lines) -> Parsed:
        places, objects, exact, broken = _objects(lines)
        rows = places + first
        unclear: dict[int, Fault] = {}
        faults: dict[int, Fault] = {}
        columns = []
        for field in self.reading.typed:
            column, bad = typed(written([row.get(field.name) for row in exact], field), field.type)
            into = unclear if field.name in self.filtered else faults
            for place, got in bad.items():
                message = f"column {field.name!r}: {got} is no {field.type}, which the column is by its first rows"
                into.setdefault(place, Fault(int(rows[place]), "read", "wrong_type", message))
            columns.append(column)
        inputs = {name: _input(name, group, objects, rows, faults) for name, group in self.reading.inputs.items()}
        none = [Fault(first + f.row, f.stage, f.type, f.message) for f in broken.values()]
        table = table_of(columns, self.reading.typed, len(rows))
        return Parsed(first, lines.rows, rows, table, inputs, none, unclear, faults)


def _input(
    name: str, group: Sequence[str], objects: Sequence[Mapping[str, Any]], rows: Array, faults: dict[int, Fault]
) -> Column:
    """The values of an input, a fault where a key is missing."""
    for column in group:
        for place, row in enumerate(objects):
            if column not in row:
                message = f"input {name!r}: no key {column!r} in this line"
                faults.setdefault(place, Fault(int(rows[place]), "decode", "missing", message))
    if len(group) == 1:
        return [row.get(group[0]) for row in objects]
    return [[row.get(column) for column in group] for row in objects]
