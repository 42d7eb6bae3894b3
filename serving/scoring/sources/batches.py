"""An Arrow IPC file, or a stream in a file: its record batches, by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from polyhead.serving.scoring.sources.files import Files

__all__ = ["ArrowFile"]

MAGIC = b"ARROW1"


class ArrowFile:
    """One file of record batches, of which one is held at a time.

    Args:
        files: its file system.
        path: of the file.
        columns: that are read; all where None.

    Attributes:
        streamed: whether it is a stream, whose batches can only be reached one after another.
        schema: of every batch.
    """

    def __init__(self, files: Files, path: str, columns: Sequence[str] | None = None) -> None:
        self.path = path
        self._files = files
        self._columns = columns
        self._source: pa.NativeFile | None = None
        self._reader: Any = None
        self._next = 0  # the batch that a stream gives next
        self._held: tuple[int, pa.RecordBatch | None] = (-1, None)
        files.patiently(path, self._open, self.close)

    def batch(self, number: int) -> pa.RecordBatch | None:
        """One batch; None past the last one.

        Raises:
            Unreadable: it cannot be read.
            InputUnreadable: its file system is away.
            InputChanged: the file is gone.
        """
        if self._held[0] != number:
            self._held = (-1, None)  # let go before the next one is read
            self._held = (number, self._files.patiently(self.path, lambda: self._read(number), self.close))
        return self._held[1]

    def counts(self) -> list[int]:
        """The rows of each batch."""
        counts: list[int] = []
        while (batch := self.batch(len(counts))) is not None:
            counts.append(batch.num_rows)
        return counts

    def close(self) -> None:
        """Let go of the file; reading on opens it again."""
        if self._source is not None:
            self._source.close()
        self._source = self._reader = None
        self._next = 0

    def _open(self) -> None:
        self.close()
        self._source = self._files.filesystem.open_input_file(self.path)
        self.streamed = self._source.read(len(MAGIC)) != MAGIC
        self._source.seek(0)
        open_any = pa.ipc.open_stream if self.streamed else pa.ipc.open_file
        self._reader = open_any(self._source)
        self.schema: pa.Schema = self._reader.schema
        if self._columns is not None:
            places = sorted(self.schema.get_field_index(name) for name in self._columns)
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=places)
            self._source.seek(0)
            self._reader = open_any(self._source, options=options)

    def _read(self, number: int) -> pa.RecordBatch | None:
        if self._source is None or (self.streamed and number < self._next):
            self._open()
        if not self.streamed:
            return self._reader.get_batch(number) if number < self._reader.num_record_batches else None
        while self._next <= number:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return None
            self._next += 1
        return batch
