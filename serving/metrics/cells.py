"""A worker's counts in a file that it and the launcher both map: nothing is sent, and nothing is lost with the worker.

One line of JSON says what the cells are; `float64` cells follow, aligned. One process writes, in place. A cell of eight
aligned bytes is read whole or not at all, so no lock is needed; cells of one histogram may be a batch apart.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
import psutil
from pydantic import Field, ValidationError

from polyhead.models.spec import Strict
from polyhead.serving.golden import Array
from polyhead.serving.metrics.families import Layout, Series

__all__ = ["ENDING", "About", "CellsFile", "create", "living", "own_start"]

ENDING = ".counts"
CELL = 8  # bytes


class About(Strict):
    """What a worker says of itself.

    Attributes:
        model, version: of the spec.
        pid: the worker's process.
        started: when that process was started, in seconds since 1970: another process may get the same number later.
        bundle: what answers: `bundle` (digest), `graph`, `runtime`, `device`, `precision`.
        series: what the cells are.
    """

    model: str
    version: str
    pid: int
    started: float
    bundle: dict[str, str]
    series: tuple[Series, ...] = Field(min_length=1)


def own_start() -> float:
    """When this process was started, in seconds since 1970."""
    return float(psutil.Process().create_time())


def living(pid: int, started: float) -> psutil.Process | None:
    """The process of this number that was started then, in seconds since 1970; None where it has ended."""
    try:
        found = psutil.Process(pid)
        alive = abs(found.create_time() - started) < 0.5 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return found if alive else None


def create(folder: Path, about: About, layout: Layout) -> Array:
    """A new file of zeros; returns its cells, to be added to.

    Raises:
        OSError: it cannot be written.
    """
    line = orjson.dumps(about.model_dump()) + b"\n"
    header = line.rjust(-(-len(line) // CELL) * CELL)  # blanks before the JSON bring the cells into alignment
    name = f"{about.pid}-{about.started:.2f}"
    temporary = folder / f"{name}.tmp"
    temporary.write_bytes(header + bytes(CELL * layout.size))
    with temporary.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    temporary.replace(folder / f"{name}{ENDING}")  # under this name it is whole from the beginning
    cells: Array = np.frombuffer(mapped, dtype=np.float64, offset=len(header))
    return cells


class CellsFile:
    """Another process's file, read.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            line = file.readline()
        try:
            self.about = About.model_validate_json(line)
        except ValidationError as error:
            raise ValueError(f"{path}: is no file of counts ({error})") from None
        self._offset = len(line)
        self._size = sum(series.size for series in self.about.series)

    @classmethod
    def all_in(cls, folder: Path, known: dict[str, Self]) -> list[Self]:
        """Every file of a folder, the `known` ones (by name, added to) not opened again."""
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(ENDING))
        for name in names:
            if name not in known:
                known[name] = cls(folder / name)
        return [known[name] for name in names]

    def read(self) -> Array:
        """The cells as they are now, `float64`."""
        return np.fromfile(self.path, dtype=np.float64, count=self._size, offset=self._offset)

    def process(self) -> psutil.Process | None:
        """The worker, None where it has ended."""
        return living(self.about.pid, self.about.started)

    def labels(self) -> dict[str, Any]:
        """The labels of every series of this worker."""
        return {"model": self.about.model, "version": self.about.version}
