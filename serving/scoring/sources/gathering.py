"""Record batches as they come off a disk, to tables of a size that suits the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

__all__ = ["Lost", "Piece", "gathered", "rounded"]

ROUND = 1024  # rows


@dataclass(frozen=True, slots=True)
class Lost:
    """Consecutive rows that cannot be read.

    Attributes:
        rows: how many.
        message: why.
    """

    rows: int
    message: str


Piece: TypeAlias = "pa.RecordBatch | Lost"


def gathered(pieces: Iterable[Piece], chunk_rows: int, chunk_bytes: int) -> Iterator[Piece]:
    """The same rows in pieces of about the size that is wanted.

    Batches are put together while they are no larger together, and one that is larger is cut; one of the right size is
    not copied.
    """
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for piece in pieces:
        parts = [] if isinstance(piece, Lost) else list(_cut(piece, chunk_rows, chunk_bytes))
        for part in parts:
            if pending and (rows + part.num_rows > chunk_rows or size + part.nbytes > chunk_bytes):
                yield _joined(pending)
                pending, rows, size = [], 0, 0
            pending.append(part)
            rows, size = rows + part.num_rows, size + part.nbytes
        if isinstance(piece, Lost):
            if pending:
                yield _joined(pending)
            pending, rows, size = [], 0, 0
            yield piece
    if pending:
        yield _joined(pending)


def rounded(rows: int) -> int:
    """So many rows or somewhat fewer, such that forward passes of a usual size leave no rest."""
    return rows - rows % ROUND if rows > ROUND else max(rows, 1)


def _cut(batch: pa.RecordBatch, chunk_rows: int, chunk_bytes: int) -> Iterator[pa.RecordBatch]:
    step = rounded(min(chunk_rows, chunk_bytes * batch.num_rows // max(batch.nbytes, 1)))
    for start in range(0, batch.num_rows, step):
        yield from _halved(batch[start : start + step], chunk_bytes)


def _halved(batch: pa.RecordBatch, chunk_bytes: int) -> Iterator[pa.RecordBatch]:
    """Rows that are as large as expected; or far larger ones, in parts."""
    if batch.num_rows > 1 and batch.nbytes > 2 * chunk_bytes:
        half = batch.num_rows // 2
        yield from _halved(batch[:half], chunk_bytes)
        yield from _halved(batch[half:], chunk_bytes)
    else:
        yield batch


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
