"""The table of rows that were not scored: which, where they failed, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.units import Unit

__all__ = ["QUARANTINE", "quarantine_table"]

QUARANTINE = pa.schema(
    [
        pa.field("unit", pa.int64(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # in the file, from 0; of images, in the listing of the folder
        pa.field("stage", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)


def quarantine_table(unit: Unit, faults: Sequence[Fault]) -> pa.Table:
    """Some rows of a unit, in the order given."""
    columns = [
        [unit.ordinal] * len(faults),
        [unit.file_of(fault.row) for fault in faults],
        [unit.first_row + fault.row for fault in faults],
        [fault.stage for fault in faults],
        [fault.type for fault in faults],
        [_sound(fault.message) for fault in faults],
        [fault.attempts for fault in faults],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, QUARANTINE, strict=True)]
    return pa.Table.from_arrays(arrays, schema=QUARANTINE)


def _sound(message: str) -> str:
    """A message that UTF-8 can hold: it may repeat half a character of the row."""
    return message.encode(errors="backslashreplace").decode()
