"""Rows of a unit as a format gives them, before the filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from polyhead.serving.golden import Array
from polyhead.serving.scoring.chunks import Column
from polyhead.serving.scoring.faults import Fault

__all__ = ["Parsed", "table_of"]


@dataclass(frozen=True, slots=True)
class Parsed:
    """Consecutive rows.

    Attributes:
        first: the number of the first one in the unit.
        total: how many.
        rows: of those that are rows of the format, their numbers in the unit, `int64`, ascending.
        table: of those, the columns that are passed on or filtered by.
        inputs: of those, the model's inputs.
        broken: those that are no rows of the format.
        unclear: by place in `rows`, where a column that the filter needs could not be read.
        faults: by place in `rows`, where another column could not be read; none where the filter leaves the row out.
    """

    first: int
    total: int
    rows: Array
    table: pa.RecordBatch
    inputs: Mapping[str, Column]
    broken: Sequence[Fault] = ()
    unclear: Mapping[int, Fault] = field(default_factory=dict)
    faults: Mapping[int, Fault] = field(default_factory=dict)


def table_of(columns: Sequence[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    """A table that knows how many rows it has also where it has no columns."""
    if not columns:
        return pa.RecordBatch.from_arrays([pa.nulls(rows)], [""]).select([])
    return pa.RecordBatch.from_arrays(columns, schema=schema)
