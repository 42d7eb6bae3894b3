"""Some consecutive rows of a unit, as they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from polyhead.serving.golden import Array
from polyhead.serving.scoring.faults import Fault

__all__ = ["Chunk", "Column"]

# Values of each row: an Arrow array; or, off JSON Lines, Python objects as JSON has them.
Column: TypeAlias = "pa.Array | Sequence[Any]"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that could be read, and those that could not.

    Attributes:
        first: the number of the chunk's first row in its unit, counting every row, also those that are not here.
        total: rows of the unit that it stands for: kept, faulty and filtered out.
        rows: of each row that is here, its number in the unit, `int64`, ascending.
        inputs: by the model's inputs, each row's value.
        passed: the columns that go to the output as they are, of the declared schema.
        faults: rows that could not be read.
        filtered: rows that the filter left out.
    """

    first: int
    total: int
    rows: Array
    inputs: Mapping[str, Column]
    passed: pa.RecordBatch
    faults: tuple[Fault, ...] = ()
    filtered: int = 0
