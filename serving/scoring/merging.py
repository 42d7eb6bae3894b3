"""Rows that are tried again, put into their places among those that were scored before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyhead.serving.golden import Array
from polyhead.serving.scoring.cells import taken
from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.errors import OutputCorrupt
from polyhead.serving.scoring.receipts import Written
from polyhead.serving.scoring.scorer import Scored
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import Unit

__all__ = ["Merge"]

ROWS = 16_384  # of the earlier part that are in memory at a time


class Merge:
    """Joins an earlier part of a unit with the rows that it lacks.

    Args:
        store: the destination.
        base: the earlier part: all rows of the unit but those filtered out and those in `only`, in order.
        unit: as it was planned.
        only: rows of the unit that are tried again.
        schema: of both.
    """

    def __init__(self, store: Store, base: Written, unit: Unit, only: Sequence[int], schema: pa.Schema) -> None:
        self._store, self._base, self._unit, self._schema = store, base, unit, schema
        self._only: Array = np.array(sorted(only), np.int64)
        self._wanted = frozenset(only)
        self._before: list[Array] = []  # rows of the earlier part, chunk by chunk

    def part(self, chunk: Chunk) -> Chunk:
        """Of a chunk, the rows that are tried again; its other rows are remembered."""
        faulty = np.array([fault.row for fault in chunk.faults], np.int64)
        here = np.union1d(chunk.rows, faulty)
        self._before.append(np.setdiff1d(here, self._only, assume_unique=True))
        kept = np.isin(chunk.rows, self._only)
        places = np.flatnonzero(kept)
        return replace(
            chunk,
            rows=chunk.rows[kept],
            inputs={name: taken(column, places) for name, column in chunk.inputs.items()},
            passed=chunk.passed.take(pa.array(places)),
            faults=tuple(fault for fault in chunk.faults if fault.row in self._wanted),
        )

    def merged(self, scored: Iterable[Scored]) -> Iterator[Scored]:
        """What was scored now, then all rows of both, in order.

        Raises:
            OutputCorrupt: the earlier part has not the rows that it should have.
        """
        rows: list[Array] = []
        tables: list[pa.Table] = []
        for found in scored:  # all of it first: only then is it known which rows the earlier part has
            rows.append(found.rows)
            tables.append(found.table)
            yield replace(found, rows=found.rows[:0], table=found.table.slice(0, 0))
        again = np.concatenate(rows) if rows else np.empty(0, np.int64)
        fresh = pa.concat_tables(tables) if tables else self._schema.empty_table()
        before = np.concatenate(self._before) if self._before else np.empty(0, np.int64)
        start = done = 0
        for batch in self._batches(len(before)):
            stop = start + len(batch)
            last = stop == len(before)
            end = len(again) if last else int(np.searchsorted(again, before[stop - 1]))
            numbers = np.concatenate([before[start:stop], again[done:end]])
            order = np.argsort(numbers, kind="stable")
            both = pa.concat_tables([batch, fresh.slice(done, end - done)]).combine_chunks()
            yield Scored(0, numbers[order], both.take(order), (), 0)
            start, done = stop, end
        if done < len(again):  # there was no row before
            yield Scored(0, again, fresh, (), 0)

    def _batches(self, rows: int) -> Iterator[pa.Table]:
        """The earlier part, some rows at a time."""
        with self._store.open(self._base.path) as file, pq.ParquetFile(file, pre_buffer=False) as part:
            found = part.metadata.num_rows
            if found != rows or not part.schema_arrow.equals(self._schema, check_metadata=False):
                raise OutputCorrupt(
                    f"{self._base.path} has {found} rows, and unit {self._unit.ordinal} has {rows} besides those that "
                    "are tried again, or its columns are others: run polyhead score verify"
                )
            for batch in part.iter_batches(ROWS):
                yield pa.Table.from_batches([batch]).cast(self._schema)
