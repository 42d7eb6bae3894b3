"""Whether a worker is answering a batch: a byte in a file that it maps, which the launcher reads.

TorchServe tells how many requests wait, and nothing of those that a worker has taken. A server that stops, and a
version that is removed, must not lose those.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from polyhead.serving.metrics.cells import living, own_start

__all__ = ["Busy", "any_busy"]

ENDING = ".busy"
IDLE, ANSWERING = 0, 1
PAGE = struct.Struct("=Bd")  # that, and when the worker was started: another process may get the same number later


class Busy:
    """A worker's own byte.

    Args:
        folder: that the launcher reads.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        temporary = folder / f"{os.getpid()}.tmp"
        temporary.write_bytes(PAGE.pack(IDLE, own_start()))
        with temporary.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)
        temporary.replace(folder / f"{os.getpid()}{ENDING}")

    def __enter__(self) -> None:
        self._page[0] = ANSWERING

    def __exit__(self, *_: object) -> None:
        self._page[0] = IDLE


def any_busy(folder: Path) -> bool:
    """Whether a living worker is answering a batch at this moment."""
    for path in folder.glob(f"*{ENDING}"):
        state, started = PAGE.unpack(path.read_bytes())
        if state == ANSWERING and living(int(path.stem), started) is not None:
            return True
    return False
