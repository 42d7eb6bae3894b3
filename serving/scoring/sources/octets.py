"""The bytes of a text file, or of a part of it, from its beginning to its end, inflated."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from polyhead.serving.scoring.sources.files import Files
from polyhead.serving.scoring.sources.listing import COMPRESSIONS

__all__ = ["Octets", "compression_of", "start_of"]

BOM = b"\xef\xbb\xbf"  # that some programs begin a file of UTF-8 with

SKIP = 1024 * 1024  # bytes that are inflated at a time, to come back to where reading failed


def compression_of(path: str) -> str | None:
    """How a text file is compressed, by its name."""
    return COMPRESSIONS.get(Path(path).suffix.lower())


class Octets:
    """Reads on where it stopped, also where reading fails for a moment.

    Args:
        files: the file's file system.
        path: of the file.
        start: the first byte that is read.
        end: the byte before which reading ends; the file's end where None. A compressed file is read whole.
    """

    def __init__(self, files: Files, path: str, start: int = 0, end: int | None = None) -> None:
        self._files = files
        self._path = path
        self._compression = compression_of(path)
        self._position = start
        self._end = end
        self._source: pa.NativeFile | None = None

    def read(self, size: int) -> bytes:
        """The next bytes, as many as are asked for; fewer at the end alone.

        Raises:
            Unreadable: the file cannot be read on.
            InputUnreadable: its file system is away.
            InputChanged: it is gone.
        """
        if self._end is not None:
            size = min(size, self._end - self._position)
        data = self._files.patiently(self._path, lambda: self._exactly(size), self.close)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Let go of the file; reading on opens it again."""
        if self._source is not None:
            self._source.close()
        self._source = None

    def _exactly(self, size: int) -> bytes:
        if self._source is None:
            self._source = self._opened()
        parts = []
        while size and (part := self._source.read(size)):
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _opened(self) -> pa.NativeFile:
        filesystem = self._files.filesystem
        if self._compression is None:
            source = filesystem.open_input_file(self._path)
            source.seek(self._position)
            return source
        source = filesystem.open_input_stream(self._path, compression=self._compression)
        left = self._position
        while left and (part := source.read(min(left, SKIP))):
            left -= len(part)
        return source


def start_of(files: Files, path: str) -> int:
    """Where the text of a file begins: after a byte order mark.

    Raises:
        Unreadable: the file cannot be read.
    """
    octets = Octets(files, path)
    try:
        return len(BOM) if octets.read(len(BOM)) == BOM else 0
    finally:
        octets.close()
