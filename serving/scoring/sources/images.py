"""A folder of images: each file a row, of its path and its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.errors import InputChanged
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.sources.files import Files, Unreadable
from polyhead.serving.scoring.sources.framing import Framing
from polyhead.serving.scoring.sources.listing import Listing, root_of
from polyhead.serving.scoring.sources.parsed import Parsed
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["IMAGE", "PATH", "ImagesSource", "images_schema"]

PATH, IMAGE = "path", "image"  # columns
UNIT_BYTES = 256 * 1024 * 1024  # of the files of one unit
READERS = 8  # files read at a time: a store far away takes long to answer


def images_schema() -> pa.Schema:
    """The columns of a folder of images."""
    return pa.schema([pa.field(PATH, pa.string()), pa.field(IMAGE, pa.binary())])


class ImagesSource:
    """Image files, in the order of their paths.

    Args:
        files: their file system.
        framing: of the job.
        listing: where it plans.
    """

    def __init__(self, files: Files, framing: Framing, listing: Listing | None = None) -> None:
        self.files = files
        self.framing = framing
        self.listing = listing
        self._root: str | None = None

    def plan(self, unit_rows: int) -> list[Unit]:
        """As `Source.plan`."""
        assert self.listing is not None  # of the driver, which opened the input
        first = 0
        units: list[Unit] = []
        for group in _groups(self.listing.files, unit_rows, UNIT_BYTES):
            units.append(Unit(len(units), tuple(group), first, len(group)))
            first += len(group)
        return units

    def read(self, unit: Unit, *, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        """As `Source.read`."""
        self.files.require(unit.files)
        return self._chunks(unit, chunk_rows, chunk_bytes)

    def _chunks(self, unit: Unit, chunk_rows: int, chunk_bytes: int) -> Iterator[Chunk]:
        if self._root is None:
            self._root = root_of(self.framing.reading.source).rstrip("/") + "/"
        first = 0
        with ThreadPoolExecutor(READERS, "read") as pool:
            for group in _groups(unit.files, chunk_rows, chunk_bytes):
                yield self.framing.finished(self._parsed(first, group, list(pool.map(self._bytes, group))))
                first += len(group)

    def _parsed(self, first: int, group: Sequence[InputFile], contents: Sequence[bytes | str]) -> Parsed:
        """Files and what they hold; or why it cannot be read."""
        paths = pa.array([file.path.removeprefix(self._root or "") for file in group], pa.string())
        images = pa.array([None if isinstance(content, str) else content for content in contents], pa.binary())
        rows = np.arange(first, first + len(group), dtype=np.int64)
        table = pa.RecordBatch.from_arrays([paths, images], schema=images_schema())
        faults = {
            place: Fault(first + place, "read", "unreadable", content)
            for place, content in enumerate(contents)
            if isinstance(content, str)
        }
        inputs = dict.fromkeys(self.framing.reading.inputs, images)
        return Parsed(first, len(group), rows, table, inputs, faults=faults)

    def _bytes(self, file: InputFile) -> bytes | str:
        limit = self.framing.reading.max_row_bytes
        if file.size > limit:
            return f"{file.path}: {file.size} bytes, allowed are {limit} a row"
        try:
            return self.files.patiently(file.path, lambda: self._content(file))
        except Unreadable as error:
            return str(error)

    def _content(self, file: InputFile) -> bytes:
        with self.files.filesystem.open_input_file(file.path) as source:
            content: bytes = source.read()
        if len(content) != file.size:
            raise InputChanged(
                f"{file.path}: {len(content)} bytes, {file.size} were planned: put the planned file back, "
                "or start a new job"
            )
        return content


def _groups(files: Sequence[InputFile], rows: int, size: int) -> Iterator[list[InputFile]]:
    """Consecutive files, so many and so many bytes together at most; one larger file is alone."""
    group: list[InputFile] = []
    held = 0
    for file in files:
        if group and (len(group) == rows or held + file.size > size):
            yield group
            group, held = [], 0
        group.append(file)
        held += file.size
    if group:
        yield group
