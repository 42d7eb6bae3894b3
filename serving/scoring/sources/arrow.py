"""Arrow IPC files, Feather among them, and streams: record batches gathered into units, larger ones cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa

from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.errors import InputUnreadable
from polyhead.serving.scoring.sources.batches import ArrowFile
from polyhead.serving.scoring.sources.files import Files, Unreadable
from polyhead.serving.scoring.sources.framing import Framing
from polyhead.serving.scoring.sources.gathering import Lost, Piece
from polyhead.serving.scoring.sources.listing import Listing
from polyhead.serving.scoring.sources.schemas import require_same
from polyhead.serving.scoring.sources.spans import spans
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["ArrowSource", "arrow_schema"]


def arrow_schema(files: Files, file: InputFile) -> pa.Schema:
    """The columns of a file.

    Raises:
        InputUnreadable: it is no Arrow file.
    """
    try:
        with closing(ArrowFile(files, file.path)) as arrow:
            return arrow.schema
    except Unreadable as error:
        raise InputUnreadable(f"{error}: is it an Arrow IPC file or stream?") from None


class ArrowSource:
    """Arrow files of one schema.

    Args:
        files: their file system.
        framing: of the job.
        listing: where it plans.
    """

    def __init__(self, files: Files, framing: Framing, listing: Listing | None = None) -> None:
        self.files = files
        self.framing = framing
        self.listing = listing
        self._opened: tuple[InputFile, ArrowFile, list[int]] | None = None

    def plan(self, unit_rows: int) -> list[Unit]:
        """As `Source.plan`."""
        assert self.listing is not None  # of the driver, which opened the input
        units: list[Unit] = []
        for file in self.listing.files:
            require_same(self.listing, file, arrow_schema(self.files, file), self.framing.needed)
            try:
                counts = self._counts(file)
            except Unreadable as error:
                raise InputUnreadable(f"{error}: is it whole?") from None
            units += [
                Unit(len(units) + index, (file,), first, rows)
                for index, (first, rows) in enumerate(spans(counts, unit_rows))
            ]
        return units

    def read(self, unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """As `Source.read`."""
        self.files.require(unit.files)
        return self.framing.chunks(self._pieces(unit), chunk_rows, chunk_bytes)

    def _counts(self, file: InputFile) -> list[int]:
        """The rows of each batch. Nothing but a read of each tells, of one column where only that is needed."""
        schema = arrow_schema(self.files, file)
        cheapest = min(self.framing.needed, key=lambda name: not pa.types.is_primitive(schema.field(name).type))
        with closing(ArrowFile(self.files, file.path, [cheapest])) as arrow:
            return arrow.counts()

    def _open(self, file: InputFile) -> tuple[ArrowFile, list[int]]:
        """Another unit often goes on where the last one ended, so the file is kept."""
        if self._opened is None or self._opened[0] != file:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = (file, ArrowFile(self.files, file.path, self.framing.needed), self._counts(file))
        return self._opened[1:]

    def _pieces(self, unit: Unit) -> Iterator[Piece]:
        [file] = unit.files
        done = 0
        try:
            arrow, counts = self._open(file)
        except Unreadable as error:
            yield Lost(unit.rows, str(error))
            return
        first = 0
        for number, rows in enumerate(counts):
            start = max(unit.first_row - first, 0)
            end = min(unit.first_row + unit.rows - first, rows)
            first += rows
            if start >= end:
                continue
            try:
                batch = arrow.batch(number)
            except Unreadable as error:
                yield Lost(end - start, str(error))
            else:
                assert batch is not None
                yield batch[start:end]
            done += end - start
