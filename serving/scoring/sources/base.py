"""What every format is to a job: planned into units by the driver, read unit by unit by the workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.units import Unit

__all__ = ["Source"]


class Source(Protocol):
    """An input of one format."""

    def plan(self, unit_rows: int) -> list[Unit]:
        """All rows of the input, in order, in units of about so many. The driver's; depends on the files alone.

        Raises:
            InputUnreadable: a file is not of its format.
            JobRefused: a file lacks a column, or has it with another type.
        """
        ...

    def read(self, unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """The rows of a unit, in order; those that cannot be read are faults. The workers'.

        Args:
            unit: as it was planned.
            chunk_rows: rows of one chunk at most.
            chunk_bytes: of one chunk, about; a single row may be larger. Chunks are cut at places that depend on the
                unit and these two numbers only.

        Raises:
            InputChanged: a file of the unit is not the one that was planned.
        """
        ...
