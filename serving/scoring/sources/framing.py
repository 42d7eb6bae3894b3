"""A table's columns to a chunk: filtered, the model's inputs apart from what is passed on, every value proven."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import types

from polyhead.serving.golden import Array
from polyhead.serving.scoring.chunks import Chunk, Column
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.filtering import Filter
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.sources.gathering import Lost, Piece, gathered
from polyhead.serving.scoring.sources.parsed import Parsed
from polyhead.serving.scoring.sources.settling import settle

__all__ = ["Framing", "bad_rows", "combined"]

STRINGS = (types.is_string, types.is_large_string)
LISTS = (
    types.is_list,
    types.is_large_list,
    types.is_fixed_size_list,
    types.is_list_view,
    types.is_large_list_view,
    types.is_map,
)


class Framing:
    """Makes chunks of one reading.

    Args:
        reading: the job's.

    Attributes:
        needed: columns that are read, each once.
        filter: of rows; None where all are scored.
        filtered: columns that the filter needs.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.filter = None if reading.filter is None else Filter.parse(reading.filter)
        columns = [column for group in reading.inputs.values() for column in group]
        self.filtered = () if self.filter is None else self.filter.columns
        wanted = (*columns, *reading.passed.names, *self.filtered)
        self.needed = tuple(dict.fromkeys(wanted))

    def chunks(self, pieces: Iterable[Piece], chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """Chunks of the rows of a unit, as its file gives them."""
        first = 0
        for piece in gathered(pieces, chunk_rows, chunk_bytes):
            if isinstance(piece, Lost):
                yield from self.lost(first, piece.rows, piece.message, chunk_rows)
                first += piece.rows
            else:
                yield self.chunk(first, piece)
                first += piece.num_rows

    def chunk(self, first: int, batch: pa.RecordBatch) -> Chunk:
        """Rows of a table, all of them readable.

        Args:
            first: the number of their first row in the unit.
            batch: with the needed columns; its rows follow each other in the unit.
        """
        columns = [settle(batch.column(name)) for name in self.needed]
        batch = pa.RecordBatch.from_arrays(columns, list(self.needed))
        rows: Array = np.arange(first, first + batch.num_rows, dtype=np.int64)
        inputs = {name: _input(batch, columns) for name, columns in self.reading.inputs.items()}
        return self.finished(Parsed(first, batch.num_rows, rows, batch, inputs))

    def finished(self, parsed: Parsed) -> Chunk:
        """The rows that the filter keeps, those with a fault apart."""
        count = len(parsed.rows)
        wanted: Array = np.ones(count, bool) if self.filter is None else self.filter.mask(parsed.table)
        wanted[list(parsed.unclear)] = True
        passed, illegible = self._passed(parsed)
        faults = illegible | {**parsed.faults, **parsed.unclear}
        faults = {place: fault for place, fault in faults.items() if wanted[place]}
        kept = wanted.copy()
        kept[list(faults)] = False
        ordered = [*parsed.broken, *faults.values()]
        return Chunk(
            parsed.first,
            parsed.total,
            parsed.rows[kept],
            {name: _taken(column, kept) for name, column in parsed.inputs.items()},
            passed if kept.all() else passed.filter(pa.array(kept)),
            tuple(sorted(ordered, key=lambda fault: fault.row)),
            count - int(wanted.sum()),
        )

    def _passed(self, parsed: Parsed) -> tuple[pa.RecordBatch, dict[int, Fault]]:
        """The columns that are passed on, and by place the rows that may not be."""
        schema = self.reading.passed
        if not schema.names:  # made of no columns, a batch would not know how many rows it has
            return parsed.table.select([]), {}
        faults: dict[int, Fault] = {}
        for field in schema:
            if has_text(field.type):
                message = f"column {field.name!r}: a string that is not UTF-8: mend it, or leave the column out"
                for place in bad_rows(parsed.table.column(field.name), _is_valid):
                    faults.setdefault(place, Fault(int(parsed.rows[place]), "read", "not_utf8", message))
        columns = [parsed.table.column(name) for name in schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=schema), faults

    def lost(self, first: int, rows: int, message: str, chunk_rows: int) -> Iterator[Chunk]:
        """Chunks of rows that cannot be read at all."""
        nothing = pa.RecordBatch.from_pylist([], schema=self.reading.passed)
        for start in range(first, first + rows, chunk_rows):
            numbers = range(start, min(start + chunk_rows, first + rows))
            faults = tuple(Fault(row, "read", "unreadable", message) for row in numbers)
            inputs = {name: pa.nulls(0) for name in self.reading.inputs}
            yield Chunk(start, len(numbers), np.zeros(0, np.int64), inputs, nothing, faults)


def _input(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.Array:
    if len(columns) == 1:
        return _bytes_of(batch.column(columns[0]))
    return combined({name: batch.column(name) for name in columns}, columns)


def combined(batch: Mapping[str, pa.Array], columns: Sequence[str]) -> pa.Array:
    """Columns of numbers to one row of numbers each, a null where one is."""
    arrays = [batch[name] for name in columns]
    nulls = any(array.null_count for array in arrays)
    numbers = np.stack([_numbers(array) for array in arrays], axis=1)
    mask = np.stack([array.is_null().to_numpy(zero_copy_only=False) for array in arrays], axis=1) if nulls else None
    values = pa.array(numbers.reshape(-1), mask=None if mask is None else mask.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, len(columns))


def _taken(column: Column, kept: Array) -> Column:
    if kept.all():
        return column
    if isinstance(column, pa.Array):
        return column.filter(pa.array(kept))
    return [value for value, keep in zip(column, kept.tolist(), strict=True) if keep]


def _numbers(array: pa.Array) -> Array:
    if array.null_count:
        array = array.fill_null(False if types.is_boolean(array.type) else 0)
    found: Array = array.to_numpy(zero_copy_only=False)
    return found


def _bytes_of(column: pa.Array) -> pa.Array:
    """An image as data sets hold it, `{bytes, path}`, to its bytes; all else as it is."""
    if types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        return column.flatten()[column.type.get_field_index("bytes")]  # with the struct's own nulls
    return column


def has_text(kind: pa.DataType) -> bool:
    """Whether strings are in values of a type, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return has_text(kind.storage_type)
    if any(is_kind(kind) for is_kind in LISTS) or types.is_struct(kind):
        return any(has_text(kind.field(index).type) for index in range(kind.num_fields))
    return any(is_kind(kind) for is_kind in STRINGS)


def bad_rows(column: pa.Array, is_good: Callable[[pa.Array], bool]) -> list[int]:
    """The rows for which a check of a whole column fails, found by halving."""
    if not len(column) or is_good(column):
        return []
    if len(column) == 1:
        return [0]
    half = len(column) // 2
    return bad_rows(column[:half], is_good) + [half + row for row in bad_rows(column[half:], is_good)]


def _is_valid(column: pa.Array) -> bool:
    if types.is_nested(column.type):  # of a slice, Arrow would look at the whole children
        column = column.take(pa.array(np.arange(len(column))))
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
