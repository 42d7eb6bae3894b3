"""CSV: fields as Python's csv reads them, cells to values by the types that the plan froze."""

from __future__ import annotations

import binascii
import codecs
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import types

from polyhead.serving.golden import Array
from polyhead.serving.scoring.chunks import Chunk, Column
from polyhead.serving.scoring.errors import InputUnreadable
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.sources import textfiles
from polyhead.serving.scoring.sources.cells import inferred, numbers, typed
from polyhead.serving.scoring.sources.files import Files
from polyhead.serving.scoring.sources.framing import Framing, combined
from polyhead.serving.scoring.sources.lines import Dialect, Lines
from polyhead.serving.scoring.sources.listing import Listing, stem_of
from polyhead.serving.scoring.sources.parsed import Parsed, table_of
from polyhead.serving.scoring.sources.schemas import require_columns
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["CsvSource", "csv_rows", "csv_schema"]

LIMIT = 16 * 1024 * 1024  # bytes of a row, while the columns are told


def csv_schema(files: Files, file: InputFile) -> pa.Schema:
    """The columns of a file: their names by its first row, their types by the rows in its first megabyte.

    Raises:
        InputUnreadable: it has no first row of names.
    """
    names, start = _header(files, file)
    dialect = Dialect(_delimiter(file.path), LIMIT)
    lines = textfiles.sample(files, file, dialect, start)
    table = _Table(names, range(len(names)), dialect, lines)
    return pa.schema([pa.field(name, inferred(table.column(index))) for index, name in enumerate(names)])


def csv_rows(files: Files, file: InputFile) -> int:
    """How many rows tell the types of a file's columns.

    Raises:
        InputUnreadable: it has no first row of names.
    """
    _, start = _header(files, file)
    return textfiles.sample(files, file, Dialect(_delimiter(file.path), LIMIT), start).rows if start else 0


def _delimiter(path: str) -> int:
    return b"\t"[0] if Path(stem_of(path)).suffix.lower() == ".tsv" else b","[0]


def _header(files: Files, file: InputFile) -> tuple[list[str], int]:
    """The names of the columns, and where the rows begin; none in an empty file."""
    delimiter = _delimiter(file.path)
    begin = textfiles.beginning(files, file)
    lines = textfiles.sample(files, file, Dialect(delimiter, LIMIT), begin)
    if not lines.rows:
        return [], 0
    line = lines.data[int(lines.starts[0]) : int(lines.ends[0])]
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise InputUnreadable(f"{file.path}: the names of the columns are not UTF-8: convert the file") from None
    if 0 in lines.broken or "\0" in text:
        raise InputUnreadable(f"{file.path}: its first line is no row of names: is it a CSV file?")
    [names] = csv.reader([text], delimiter=chr(delimiter))
    return names, begin + int(lines.stops[0])


class _Table:
    """The fields of some lines, as bytes.

    Args:
        names: of all columns.
        wanted: those that are read, by their places.
        dialect: of the file.
        lines: at least one.

    Attributes:
        rows: those that have as many fields as there are columns, by their places in the lines.
        broken: the others, and why.
    """

    def __init__(self, names: Sequence[str], wanted: Sequence[int], dialect: Dialect, lines: Lines) -> None:
        self._options = {
            "read_options": arrow_csv.ReadOptions(
                use_threads=False, column_names=[str(index) for index in range(len(names))]
            ),
            "convert_options": arrow_csv.ConvertOptions(
                check_utf8=False,
                column_types={str(index): pa.binary() for index in wanted},
                include_columns=[str(index) for index in wanted],
            ),
        }
        self._delimiter = chr(dialect.delimiter or 0)
        self.broken = dict(lines.broken)
        sound = np.setdiff1d(np.arange(lines.rows), list(lines.broken))
        table, odd = self._parsed(_joined(lines, sound))
        if table is not None and table.num_rows + len(odd) != len(sound):  # read otherwise than they were counted
            table, odd = self._one_by_one(lines, sound)
        self.broken |= {int(sound[place]): why for place, why in odd.items()}
        self.rows: Array = np.delete(sound, list(odd))
        self._table = table

    def column(self, place: int) -> pa.Array:
        """The cells of a column, `binary [rows]`."""
        if self._table is None:
            return pa.array([], pa.binary())
        return self._table.column(str(place)).combine_chunks()

    def _parsed(self, data: bytes | memoryview) -> tuple[pa.Table | None, dict[int, str]]:
        odd: dict[int, str] = {}
        if not len(data):
            return None, odd

        def skip(row: Any) -> str:
            odd[row.number - 1] = f"{row.actual_columns} fields, the first row names {row.expected_columns}"
            return "skip"

        recoded = not _is_utf8(data)
        if recoded:  # the handler is only told of rows that are
            data = bytes(data).decode("latin-1").encode()
        options = arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=skip)
        if data[:3] == codecs.BOM_UTF8:  # of a cell, for the file's own is before its names: Arrow drops one
            data = codecs.BOM_UTF8 + data
        self._options["read_options"].block_size = len(data) + 1
        table = arrow_csv.read_csv(pa.BufferReader(data), parse_options=options, **self._options)
        return (_as_written(table) if recoded else table), odd

    def _one_by_one(self, lines: Lines, sound: Array) -> tuple[pa.Table | None, dict[int, str]]:
        tables, odd = [], {}
        for place, row in enumerate(sound.tolist()):
            table, wrong = self._parsed(lines.data[lines.starts[row] : lines.ends[row]])
            if table is not None and table.num_rows == 1:
                tables.append(table)
            else:
                odd[place] = wrong.get(0, "a line that is no row")
        return (pa.concat_tables(tables) if tables else None), odd


def _is_utf8(data: bytes | memoryview) -> bool:
    try:
        bytes(data).decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_written(table: pa.Table) -> pa.Table:
    """Cells of bytes that were read as if each were a character."""
    columns = [[cell.decode().encode("latin-1") for cell in column.to_pylist()] for column in table.columns]
    return pa.table([pa.array(column, pa.binary()) for column in columns], table.schema.names)


def _joined(lines: Lines, rows: Array) -> bytes | memoryview:
    """The bytes of some lines."""
    view = memoryview(lines.data)
    if not len(rows):
        return b""
    if len(rows) == lines.rows:
        return view[int(lines.starts[0]) : int(lines.ends[-1])]
    return b"".join(view[start:end] for start, end in zip(lines.starts[rows], lines.ends[rows], strict=True))


class CsvSource:
    """CSV files, each with a first row of names.

    Args:
        files: their file system.
        framing: of the job.
        listing: where it plans.
    """

    def __init__(self, files: Files, framing: Framing, listing: Listing | None = None) -> None:
        self.files = files
        self.framing = framing
        self.listing = listing
        self._headers: dict[InputFile, tuple[list[str], int]] = {}

    def plan(self, unit_rows: int) -> list[Unit]:
        """As `Source.plan`."""
        assert self.listing is not None  # of the driver, which opened the input
        units: list[Unit] = []
        for file in self.listing.files:
            names, start = _header(self.files, file)
            if names:
                require_columns(self.listing, file, names, self.framing.needed)
                units += textfiles.planned(self.files, file, start, self._dialect(file), unit_rows, len(units))
        return units

    def read(self, unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """As `Source.read`."""
        [file] = unit.files
        self.files.require(unit.files)
        if file not in self._headers:
            self._headers = {file: _header(self.files, file)}
        names, start = self._headers[file]
        dialect = self._dialect(file)
        parse = _Parsing(self.framing.reading, names, self.framing.filtered, self.framing.needed, dialect)
        return textfiles.read(self.files, self.framing, unit, start, dialect, parse, (chunk_rows, chunk_bytes))

    def _dialect(self, file: InputFile) -> Dialect:
        return Dialect(_delimiter(file.path), self.framing.reading.max_row_bytes)


class _Parsing:
    """Lines of one file to rows."""

    def __init__(
        self,
        reading: Reading,
        names: Sequence[str],
        filtered: Sequence[str],
        needed: Sequence[str],
        dialect: Dialect,
    ) -> None:
        self.reading = reading
        self.names = names
        self.filtered = frozenset(filtered)
        self.places = {name: names.index(name) for name in needed}
        self.dialect = dialect

    def __call__(self, first: int, lines: Lines) -> Parsed:
        cells = _Table(self.names, sorted(self.places.values()), self.dialect, lines)
        rows = cells.rows + first
        broken = [Fault(first + place, "read", "malformed_row", why) for place, why in sorted(cells.broken.items())]
        unclear: dict[int, Fault] = {}
        faults: dict[int, Fault] = {}
        columns = []
        for field in self.reading.typed:
            raw = cells.column(self.places[field.name])
            column, bad = typed(raw, field.type)
            into = unclear if field.name in self.filtered else faults
            for place in bad:
                into.setdefault(place, _mistyped(int(rows[place]), field, raw[place].as_py()))
            columns.append(column)
        inputs = {name: self._input(name, group, cells, rows, faults) for name, group in self.reading.inputs.items()}
        table = table_of(columns, self.reading.typed, len(rows))
        return Parsed(first, lines.rows, rows, table, inputs, broken, unclear, faults)

    def _input(self, name: str, group: Sequence[str], cells: _Table, rows: Array, faults: dict[int, Fault]) -> Column:
        """The values of an input; texts as bytes."""
        kind = self.reading.kinds[name]
        if kind == "text":
            return cells.column(self.places[group[0]])
        if kind == "image":
            return pa.array(map(_image, cells.column(self.places[group[0]]).to_pylist()), pa.binary())
        columns: dict[str, Any] = {}
        for column in group:
            values, bad = numbers(cells.column(self.places[column]), np.dtype(kind).kind, listed=len(group) == 1)
            for place, why in bad.items():
                faults.setdefault(place, _no_number(int(rows[place]), name, column, why))
            columns[column] = values
        return columns[group[0]] if len(group) == 1 else combined(columns, group)


def _image(cell: bytes) -> bytes:
    """The bytes of an image that is written in base64; else the cell, which is none."""
    try:
        return binascii.a2b_base64(cell, strict_mode=True)
    except binascii.Error:
        return cell


def _mistyped(row: int, field: pa.Field, cell: bytes) -> Fault:
    message = f"column {field.name!r}: {cell.decode(errors='replace')!r:.60} is no {field.type}, which the column is"
    if types.is_string(field.type):
        return Fault(row, "read", "not_utf8", f"column {field.name!r}: a string that is not UTF-8: mend it")
    return Fault(row, "read", "wrong_type", f"{message} by its first rows: mend it, or leave the column out")


def _no_number(row: int, name: str, column: str, why: str) -> Fault:
    if not why:
        return Fault(row, "decode", "missing", f"input {name!r}: column {column!r} is empty")
    return Fault(row, "decode", "invalid_instance", f"input {name!r}: column {column!r}: {why}")
