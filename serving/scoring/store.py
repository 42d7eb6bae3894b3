"""A job's destination: files by name, whole or absent, on any file system."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import pyarrow as pa
from pyarrow import fs

from polyhead.serving.scoring.backends import Backend, LocalBackend, ObjectBackend, Writable
from polyhead.serving.scoring.errors import ScoringError
from polyhead.serving.scoring.filesystems import is_local, resolve, shown
from polyhead.serving.scoring.storefaults import again, full, is_full

__all__ = ["Sink", "Store"]

Result = TypeVar("Result")

# Where a file is there only when it has been closed. Others get a new file by renaming it.
WHOLE = frozenset(["s3", "gcs", "abfs"])
WHOLE_OF_FSSPEC = frozenset(["s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"])


class Sink:
    """A new file: counts and hashes what is written to it. Good for pyarrow's writers.

    Attributes:
        size: bytes so far.
    """

    closed = False  # the context closes it, nobody else

    def __init__(self, file: Writable, where: str) -> None:
        self.size = 0
        self._file = file
        self._where = where
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of everything so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        """Write all of some bytes.

        Raises:
            StoreFull: there is no room.
        """
        view = memoryview(data).cast("B")
        with _room(self._where):
            self._file.write(view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes so far."""
        return self.size

    def writable(self) -> bool:
        """As files say it."""
        return True

    def flush(self) -> None:
        """Nothing is promised before the context ends."""

    def close(self) -> None:
        """The context does it."""


class Store:
    """Files below one address.

    Reads and whole writes that fail for a moment are tried again; files written in pieces are not.

    Args:
        address: of the destination.
        backend: how its file system is used.

    Every method raises `StoreFull` where there is no room, and `OSError` where the file system fails otherwise.
    """

    def __init__(self, address: str, backend: Backend) -> None:
        self.address = address
        self.backend = backend

    @classmethod
    def of(cls, address: str | Path) -> Self:
        """The store of an address; nothing is made or looked at yet.

        Raises:
            JobRefused: nobody knows such an address.
            RuntimeUnavailable: fsspec, or its package for the address, is not installed.
        """
        filesystem, path = resolve(address)
        if is_local(filesystem):
            return cls(path, LocalBackend(Path(path)))
        return cls(str(address), ObjectBackend(filesystem, path, whole=_is_whole(filesystem)))

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine."""
        return self.backend.root if isinstance(self.backend, LocalBackend) else None

    def where(self, name: str) -> str:
        """A file as messages name it."""
        return f"{shown(self.address)}: {name}"

    def read(self, name: str) -> bytes:
        """A file's content."""
        return self._do(name, lambda: self.backend.read(name))

    def put(self, name: str, data: bytes) -> None:
        """Write a file, or replace it, whole and durably."""
        self._do(name, lambda: self.backend.put(name, data))

    def names(self, prefix: str = "") -> list[str]:
        """Names of the files below a folder, sorted; none where there is no such folder."""
        return self._do(prefix, lambda: self.backend.names(prefix))

    def times(self, prefix: str) -> dict[str, float]:
        """When each file below a folder was written last: seconds, by the file system's clock."""
        return self._do(prefix, lambda: self.backend.times(prefix))

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """A file's bytes; None where there is none."""
        return self._do(name, lambda: self.backend.size(name))

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no failure."""
        self._do(name, lambda: self.backend.delete(name))

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all in it; one that is not there is no failure."""
        self._do(folder, lambda: self.backend.delete_folder(folder))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        """Write a new file in pieces: durable when the context ends; never replaces one."""
        where = self.where(name)
        with _room(where), self.backend.writing(name) as file:
            yield Sink(file, where)

    def open(self, name: str) -> pa.NativeFile:
        """A file to read at random."""
        return self._do(name, lambda: self.backend.open(name))

    def publish(self, name: str, target: str) -> None:
        """Let a file be found under a second name too. May be done again."""
        self._do(name, lambda: self.backend.publish(name, target))

    def _do(self, name: str, call: Callable[[], Result]) -> Result:
        with _room(self.where(name)):
            return call() if self.local is not None else again(call)


@contextlib.contextmanager
def _room(where: str) -> Iterator[None]:
    try:
        yield
    except ScoringError:
        raise
    except OSError as error:
        if is_full(error):
            raise full(error, where) from None
        raise


def _is_whole(filesystem: fs.FileSystem) -> bool:
    kind: str = filesystem.type_name  # of fsspec's: `py::fsspec+memory`, `py::fsspec+('s3', 's3a')`
    if kind.startswith("py::fsspec+"):
        return not WHOLE_OF_FSSPEC.isdisjoint(re.findall(r"\w+", kind))
    return kind in WHOLE
