"""Parquet: whole row groups gathered into units, larger ones cut into row ranges; read in small steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa

from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.sources.files import Files, Unreadable
from polyhead.serving.scoring.sources.framing import Framing
from polyhead.serving.scoring.sources.gathering import Lost, Piece
from polyhead.serving.scoring.sources.groups import GroupReader, Handle
from polyhead.serving.scoring.sources.listing import Listing
from polyhead.serving.scoring.sources.schemas import require_same
from polyhead.serving.scoring.sources.spans import spans
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["ParquetSource", "parquet_schema"]


def parquet_schema(files: Files, file: InputFile) -> pa.Schema:
    """The columns of a file.

    Raises:
        InputUnreadable: it is no Parquet file.
    """
    return _footer(files, file)[0]


def _footer(files: Files, file: InputFile) -> tuple[pa.Schema, list[int]]:
    """The columns of a file, and the rows of each of its row groups."""
    with closing(Handle(files, file)) as handle:
        return files.planned(file.path, lambda: (handle.parquet().schema_arrow, handle.counts()))


class ParquetSource:
    """Parquet files of one schema.

    Args:
        files: their file system.
        framing: of the job.
        listing: where it plans.
    """

    def __init__(self, files: Files, framing: Framing, listing: Listing | None = None) -> None:
        self.files = files
        self.framing = framing
        self.listing = listing
        self._opened: tuple[Handle, list[int]] | None = None
        self._reader: GroupReader | None = None

    def plan(self, unit_rows: int) -> list[Unit]:
        """As `Source.plan`."""
        assert self.listing is not None  # of the driver, which opened the input
        units: list[Unit] = []
        for file in self.listing.files:
            schema, groups = _footer(self.files, file)
            require_same(self.listing, file, schema, self.framing.needed)
            units += [
                Unit(len(units) + index, (file,), first, rows)
                for index, (first, rows) in enumerate(spans(groups, unit_rows))
            ]
        return units

    def read(self, unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """As `Source.read`."""
        self.files.require(unit.files)
        pieces = self._pieces(unit, chunk_rows, chunk_bytes)
        return self.framing.chunks(pieces, chunk_rows, chunk_bytes)

    def _pieces(self, unit: Unit, chunk_rows: int, chunk_bytes: int) -> Iterator[Piece]:
        try:
            handle, groups = self._open(unit.files[0])
        except Unreadable as error:
            yield Lost(unit.rows, str(error))
            return
        first = 0
        for group, rows in enumerate(groups):
            start = max(unit.first_row - first, 0)
            end = min(unit.first_row + unit.rows - first, rows)
            first += rows
            if start < end:
                yield from self._rows(handle, (group, chunk_rows, chunk_bytes), start, end)

    def _open(self, file: InputFile) -> tuple[Handle, list[int]]:
        """The file, kept for the units that follow."""
        if self._opened is None or self._opened[0].file != file:
            if self._opened is not None:
                self._opened[0].close()
            self._opened = None
            handle = Handle(self.files, file)
            self._opened = handle, self.files.patiently(file.path, handle.counts, handle.close)
        return self._opened

    def _rows(self, handle: Handle, key: tuple[int, int, int], start: int, end: int) -> Iterator[Piece]:
        """Rows of one row group. Its reader is kept: another unit often goes on where this one ends."""
        reader = self._reader
        if reader is None or reader.handle is not handle or reader.key != key:
            self._reader = reader = GroupReader(handle, key, self.framing.needed)
        done = start
        try:
            for batch in reader.rows(start, end):
                done += batch.num_rows
                yield batch
        except Unreadable as error:
            self._reader = None
            yield Lost(end - done, f"row group {key[0]}: {error}")
