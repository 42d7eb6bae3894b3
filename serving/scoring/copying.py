"""A file on an object store under a second name."""

from __future__ import annotations

from pyarrow import fs

__all__ = ["copy"]

LARGEST = 5 * 1024**3  # bytes that S3 copies by itself, in one request
PIECE = 8 * 1024 * 1024


def copy(filesystem: fs.FileSystem, path: str, goal: str, size: int) -> None:
    """Copy a file: the store does it itself where it can, else it passes through here in pieces.

    Args:
        filesystem: of both.
        path, goal: on it. What was there is replaced.
        size: of the file, in bytes.
    """
    if size <= LARGEST:
        filesystem.copy_file(path, goal)
        return
    with (
        filesystem.open_input_stream(path, compression=None) as source,
        filesystem.open_output_stream(goal, compression=None) as target,
    ):
        while piece := source.read(PIECE):
            target.write(piece)
