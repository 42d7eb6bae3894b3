"""Rows in memory as a source: chunks of a table, cut as they are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from polyhead.serving.scoring.cells import taken
from polyhead.serving.scoring.chunks import Chunk, Column
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Journal
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["Memory", "column_of", "rows_of", "scored"]


def column_of(values: Any) -> Column:
    """Rows of one input, `[rows, …]` or texts, as a Parquet file would have them."""
    if not isinstance(values, np.ndarray):
        return pa.array(values)
    column = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


class Memory:
    """A source of one unit.

    Args:
        inputs: by input of the model, each row's value.
        chunk: rows of a chunk; what the scorer asks for where None.
        unreadable, hidden: rows that cannot be read, or that a filter leaves out.
    """

    def __init__(
        self,
        inputs: Mapping[str, Column],
        chunk: int | None = None,
        unreadable: Sequence[int] = (),
        hidden: Sequence[int] = (),
        first_row: int = 0,
    ) -> None:
        self.inputs = inputs
        self.rows = len(next(iter(inputs.values())))
        self.chunk, self.unreadable, self.hidden = chunk, set(unreadable), set(hidden)
        self.unit = Unit(3, (InputFile("/data/table.parquet", 1, "1"),), first_row, self.rows)

    def plan(self, _unit_rows: int) -> list[Unit]:
        return [self.unit]

    def read(self, _unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        size = self.chunk or chunk_rows
        for start in range(0, self.rows, size):
            numbers = range(start, min(start + size, self.rows))
            here = [row for row in numbers if row not in self.unreadable | self.hidden]
            whole, places = len(here) == len(numbers), np.array(here, np.int64)
            inputs = {
                name: column[start : numbers.stop] if whole else taken(column, places)
                for name, column in self.inputs.items()
            }
            passed = pa.record_batch({"id": pa.array([f"row {row}" for row in here], pa.string())})
            faults = tuple(Fault(row, "read", "unreadable", "no page") for row in numbers if row in self.unreadable)
            hidden = sum(row in self.hidden for row in numbers)
            yield Chunk(start, len(numbers), np.array(here, np.int64), inputs, passed, faults, hidden)


def scored(scorer: Scorer, source: Memory, journal: Journal | None = None) -> tuple[pa.Table, dict[int, Fault]]:
    """All rows of a source, and the faults by row; every row is counted."""
    chunks = source.read(source.unit, chunk_rows=scorer.chunk_rows, chunk_bytes=scorer.chunk_bytes)
    parts = list(scorer.score(chunks, journal))
    assert sum(part.total for part in parts) == source.rows
    faults = [fault for part in parts for fault in part.faults]
    rows = np.concatenate([part.rows for part in parts])
    table = pa.concat_tables([part.table for part in parts])
    assert table.column("id").to_pylist() == [f"row {row}" for row in rows.tolist()]
    assert (np.diff(rows) > 0).all()
    found = {fault.row: fault for fault in faults}
    assert len(found) == len(faults)
    assert sorted([*found, *rows.tolist(), *source.hidden]) == list(range(source.rows))
    return table, found


def rows_of(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Some rows of a table, by the number in their id."""
    numbers = {name: place for place, name in enumerate(table.column("id").to_pylist())}
    return table.take([numbers[f"row {row}"] for row in rows])
