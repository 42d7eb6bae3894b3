"""What a store needs of a file system: files whole or absent, and durable once a call has returned.

Names are relative to the destination, with `/`. Each method may raise `OSError`; none tries again by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import fs

from polyhead.serving.scoring.copying import copy

__all__ = ["TEMPORARY", "Backend", "LocalBackend", "ObjectBackend", "Writable"]

# Files that are not whole yet. On the destination's own file system, so that a rename can put them in place.
TEMPORARY = "_polyhead/tmp"
LOOKS = 5
# Links that cannot be made: another device, a file system without them, too many of one file, or not allowed.
NO_LINKS = frozenset([errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])


class Writable(Protocol):
    """A file that is being written."""

    def write(self, data: Any, /) -> Any:
        """Write all of some bytes."""


class Backend(Protocol):
    """One kind of file system."""

    def read(self, name: str) -> bytes:
        """A file's content."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, or replace it: its old content, or its new one, is there at every moment."""

    def names(self, folder: str) -> list[str]:
        """Files below a folder, sorted; none where there is no such folder. What is not whole yet is left out."""

    def times(self, folder: str) -> dict[str, float]:
        """When each file below a folder was written last: seconds, by the file system's clock."""

    def size(self, name: str) -> int | None:
        """A file's bytes; None where there is none."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no failure."""

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all in it; one that is not there is no failure."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[Writable]:
        """Write a new file in pieces; durable when the context ends, gone when it fails."""

    def open(self, name: str) -> pa.NativeFile:
        """A file to read at random."""

    def publish(self, name: str, target: str) -> None:
        """Let a file be found under a second name, whatever was there before."""


class LocalBackend:
    """Files of this machine. Every change is on the disk (`fsync` of file and folder) when a call returns.

    Args:
        root: the destination.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """A file's content."""
        return (self.root / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """Write a file, or replace it."""
        with self._temporary() as (path, descriptor):
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                _sync(file.fileno())
            self._place(path, self.root / name)

    def names(self, folder: str) -> list[str]:
        """Files below a folder, sorted."""
        found = []
        for base, folders, files in os.walk(self.root / folder):
            relative = Path(base).relative_to(self.root)
            folders[:] = [name for name in folders if (relative / name).as_posix() != TEMPORARY]
            found += [(relative / name).as_posix() for name in files]
        return sorted(found)

    def times(self, folder: str) -> dict[str, float]:
        """When each file below a folder was written last."""
        found = {}
        for name in self.names(folder):
            with contextlib.suppress(FileNotFoundError):  # it went while we looked
                found[name] = (self.root / name).stat().st_mtime
        return found

    def size(self, name: str) -> int | None:
        """A file's bytes; None where there is none."""
        try:
            found = (self.root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def delete(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all in it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / folder)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Writable]:
        """Write a new file in pieces."""
        path = self.root / name
        self._folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                _sync(file.fileno())
            _sync_folder(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def open(self, name: str) -> pa.NativeFile:
        """A file to read at random."""
        return pa.OSFile(str(self.root / name), "rb")

    def publish(self, name: str, target: str) -> None:
        """Let a file be found under a second name: a hard link, or a copy where links do not work."""
        source, goal = self.root / name, self.root / target
        if goal.exists() and goal.samefile(source):
            return
        link = self._new_temporary()
        try:
            try:
                os.link(source, link)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                shutil.copyfile(source, link)
                with link.open("rb+") as file:
                    _sync(file.fileno())
            self._place(link, goal)
        except BaseException:
            link.unlink(missing_ok=True)
            raise

    def _new_temporary(self) -> Path:
        folder = self.root / TEMPORARY
        self._folder(folder)
        return folder / uuid.uuid4().hex

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, int]]:
        path = self._new_temporary()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            yield path, descriptor
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _place(self, path: Path, goal: Path) -> None:
        self._folder(goal.parent)
        path.rename(goal)
        _sync_folder(goal.parent)

    def _folder(self, folder: Path) -> None:
        """Make a folder and those above it, durably."""
        if folder.is_dir():
            return
        self._folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


class ObjectBackend:
    """Any other file system: object stores, and whatever fsspec opens.

    Args:
        filesystem: that holds the destination.
        root: its path there.
        whole: whether a file appears only when it is closed, as in object stores; else it is renamed into place.
    """

    def __init__(self, filesystem: fs.FileSystem, root: str, *, whole: bool = True) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.whole = whole

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes:
        """A file's content."""
        with self.filesystem.open_input_stream(self._path(name), compression=None) as file:
            return bytes(file.read())

    def put(self, name: str, data: bytes) -> None:
        """Write a file, or replace it: one put."""
        path = self._path(name)
        if self.whole:
            self._write(path, data)
            return
        temporary = self._path(f"{TEMPORARY}/{uuid.uuid4().hex}")
        self._write(temporary, data)
        self._folder(path)
        self.filesystem.move(temporary, path)

    def names(self, folder: str) -> list[str]:
        """Files below a folder, sorted."""
        return sorted(self._listing(folder))

    def times(self, folder: str) -> dict[str, float]:
        """When each file below a folder was written last."""
        found = {}
        for name, info in self._listing(folder).items():
            with contextlib.suppress(FileNotFoundError):  # it went while we looked
                found[name] = self._time(info)
        return found

    def _listing(self, folder: str) -> dict[str, fs.FileInfo]:
        selector = fs.FileSelector(self._path(folder.rstrip("/")), recursive=True, allow_not_found=True)
        files = [info for info in self._infos(selector) if info.type == fs.FileType.File]
        start, hidden = f"{self.root}/".lstrip("/"), f"{TEMPORARY}/"
        named = {info.path.lstrip("/").removeprefix(start): info for info in files}
        # An empty object whose name ends in a slash is what some tools make for a folder.
        return {
            name: info for name, info in named.items() if not name.startswith(hidden) and name[-1:] not in ("/", "")
        }

    def _infos(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """What is there; some of fsspec's stumble over what goes while they look."""
        for _ in range(LOOKS - 1):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return list(self.filesystem.get_file_info(selector))
        return list(self.filesystem.get_file_info(selector))

    def _time(self, info: fs.FileInfo) -> float:
        if info.mtime is not None:
            return float(info.mtime.timestamp())
        # pyarrow asks fsspec's listings, which have it under a name of each store's own, or not at all.
        return float(self.filesystem.handler.fs.modified(info.path).timestamp())

    def size(self, name: str) -> int | None:
        """A file's bytes; None where there is none."""
        info = self.filesystem.get_file_info(self._path(name))
        return int(info.size) if info.type == fs.FileType.File else None

    def delete(self, name: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            if self.size(name) is not None:
                self.filesystem.delete_file(self._path(name))

    def delete_folder(self, folder: str) -> None:
        """Remove a folder and all in it."""
        with contextlib.suppress(FileNotFoundError):
            if self.filesystem.get_file_info(self._path(folder)).type == fs.FileType.Directory:
                self.filesystem.delete_dir(self._path(folder))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Writable]:
        """Write a new file in pieces."""
        path = self._path(name)
        if self.size(name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._folder(path)
        file = self.filesystem.open_output_stream(path, compression=None)
        try:
            yield file
            file.close()
        except BaseException:
            # The error that brought us here is the one to tell; a file that stays is an attempt that nothing names.
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                self.delete(name)
            raise

    def open(self, name: str) -> pa.NativeFile:
        """A file to read at random."""
        return self.filesystem.open_input_file(self._path(name))

    def publish(self, name: str, target: str) -> None:
        """Let a file be found under a second name: a copy that the store makes itself."""
        self._folder(self._path(target))
        copy(self.filesystem, self._path(name), self._path(target), self.size(name) or 0)

    def _write(self, path: str, data: bytes) -> None:
        self._folder(path)
        with self.filesystem.open_output_stream(path, compression=None) as file:
            file.write(data)

    def _folder(self, path: str) -> None:
        if not self.whole:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
