"""One row group of a Parquet file, read from its beginning in steps, for that is how Parquet can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from polyhead.serving.scoring.sources.files import Files
from polyhead.serving.scoring.sources.gathering import rounded
from polyhead.serving.scoring.units import InputFile

__all__ = ["GroupReader", "Handle", "Key"]

PROBE = 64  # rows that tell how large rows are
BUFFER = 1024 * 1024  # bytes of one column that are fetched at a time

# The row group, and rows and bytes of one step at most.
Key: TypeAlias = tuple[int, int, int]


class Handle:
    """A Parquet file, opened once for all its row groups. Little of it is held: no column is fetched whole.

    Args:
        files: its file system.
        file: as it was planned.
    """

    def __init__(self, files: Files, file: InputFile) -> None:
        self.files = files
        self.file = file
        self._source: pa.NativeFile | None = None
        self._parquet: pq.ParquetFile | None = None

    def parquet(self) -> pq.ParquetFile:
        """The file.

        Raises:
            OSError: it cannot be opened; so does Arrow, by its own exceptions, where it is no Parquet file.
        """
        if self._parquet is None:
            self._source = self.files.filesystem.open_input_file(self.file.path)
            self._parquet = pq.ParquetFile(self._source, pre_buffer=False, buffer_size=BUFFER)
        return self._parquet

    def counts(self) -> list[int]:
        """The rows of each row group; raises as `parquet` does."""
        metadata = self.parquet().metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def close(self) -> None:
        """Let go of the file; whoever reads on opens it again."""
        if self._source is not None:
            self._source.close()
        self._source = self._parquet = None


class GroupReader:
    """Reads row ranges. One that begins where the last ended costs nothing to find; any other is skipped to.

    Steps are counted from the row group's beginning, so that a range comes in the same pieces whatever was read before.

    Args:
        handle: of the file.
        key: what is read.
        columns: that are read.
    """

    def __init__(self, handle: Handle, key: Key, columns: Sequence[str]) -> None:
        self.handle = handle
        self.key = key
        self._columns = list(columns)
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._last: pa.RecordBatch | None = None  # the rows up to `_next`
        self._next = 0  # row that `_batches` gives next

    def rows(self, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """The rows of a range, numbered in the row group.

        Raises:
            Unreadable: of the first row that was not given.
            InputUnreadable: its file system is away.
            InputChanged: the file is gone.
        """
        if start < self._first:
            self._rewind()
        while start < end:
            while start >= self._next:
                self._advance()
            assert self._last is not None
            part = self._last[start - self._first : end - self._first]
            start += part.num_rows
            yield part

    @property
    def _first(self) -> int:
        return self._next - (0 if self._last is None else self._last.num_rows)

    def _rewind(self) -> None:
        self._batches, self._last, self._next = None, None, 0

    def _reopen(self) -> None:
        self._rewind()
        self.handle.close()

    def _advance(self) -> None:
        """One step on; where it fails for a moment, all the way again from the beginning."""
        target = self._next

        def steps() -> None:
            while self._next <= target:
                self._step()

        self.handle.files.patiently(self.handle.file.path, steps, self._reopen)

    def _step(self) -> None:
        if self._batches is None:
            self._batches = self._begun()
        self._last = next(self._batches, None)
        if self._last is None:
            raise pa.ArrowInvalid("has fewer rows than the footer says")
        self._next += self._last.num_rows

    def _begun(self) -> Iterator[pa.RecordBatch]:
        group, chunk_rows, chunk_bytes = self.key
        parquet = self.handle.parquet()
        rows = parquet.metadata.row_group(group).num_rows
        # The footer counts encoded values: a text that a dictionary says a thousand times is one.
        probe = next(parquet.iter_batches(PROBE, [group], self._columns, use_threads=False), None)
        size = 0 if probe is None else probe.nbytes * rows // max(probe.num_rows, 1)
        step = _rows_of_step(parquet.metadata.row_group(group), self._columns, chunk_rows, chunk_bytes, size)
        batches: Iterator[pa.RecordBatch] = parquet.iter_batches(step, [group], self._columns, use_threads=False)
        return batches


def _rows_of_step(
    group: pq.RowGroupMetaData, columns: Sequence[str], chunk_rows: int, chunk_bytes: int, least: int
) -> int:
    """As many rows as chunk_bytes hold, by what the footer says of the group's size, and that it has `least`."""
    wanted = set(columns)
    chunks = (group.column(index) for index in range(group.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted)
    return rounded(min(chunk_rows, chunk_bytes * group.num_rows // max(size, least, 1)))
