"""Input files: found again as they were planned, read with patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from polyhead.serving.scoring.errors import InputChanged, InputUnreadable
from polyhead.serving.scoring.filesystems import is_local
from polyhead.serving.scoring.storefaults import is_transient
from polyhead.serving.scoring.units import InputFile

__all__ = ["RETRIES", "Files", "Unreadable"]

T = TypeVar("T")

RETRIES = 4  # after which an error is not transient
ASKERS = 8  # files asked for their versions at a time
PAUSE = 0.1  # seconds before the first retry, doubled before each further one

# What fsspec's file systems call the thing that changes when a file is written again, the surest first.
VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modified", "created")


class Unreadable(Exception):
    """A part of a file that cannot be read, however often it is tried, though the file system answers."""


class Files:
    """The files of one input.

    Args:
        filesystem: that they are on.
        many: whether they are too many to ask for each one's version where a listing does not tell it; its time of
            modification must do then, which S3 knows to the second.
        pause: seconds before the first retry.
    """

    def __init__(self, filesystem: fs.FileSystem, many: bool = False, pause: float = PAUSE) -> None:
        self.filesystem = filesystem
        self.many = many
        self.pause = pause

    def described(self, infos: Sequence[fs.FileInfo]) -> list[InputFile]:
        """Files as they are now, as they were just listed."""
        if is_local(self.filesystem) or self.many:
            versions = [self._version(info) for info in infos]
        else:
            with ThreadPoolExecutor(ASKERS, "ask") as pool:
                versions = list(pool.map(self._version, infos))
        return [
            InputFile(info.path, int(info.size or 0), version) for info, version in zip(infos, versions, strict=True)
        ]

    def _version(self, info: fs.FileInfo) -> str:
        if isinstance(self.filesystem, fs.PyFileSystem) and isinstance(self.filesystem.handler, fs.FSSpecHandler):
            known: dict[str, Any] = self.filesystem.handler.fs.info(info.path)
            return next((str(known[key]) for key in VERSIONS if known.get(key) is not None), "")
        if isinstance(self.filesystem, fs.S3FileSystem) and not self.many:
            with self.filesystem.open_input_file(info.path) as source:
                tag = (source.metadata() or {}).get("ETag")
            if tag is not None:
                return str(tag.decode().strip('"'))
        return str(info.mtime_ns or "")

    def require(self, files: Sequence[InputFile]) -> None:
        """Refuse files that are not as they were planned.

        Raises:
            InputChanged: one is gone, or has another size or version.
            InputUnreadable: the file system does not answer.
        """
        if isinstance(self.filesystem, fs.PyFileSystem) and isinstance(self.filesystem.handler, fs.FSSpecHandler):
            self.filesystem.handler.fs.invalidate_cache()  # it may remember the files as they were
        now = self.planned(files[0].path, lambda: self._described([file.path for file in files]))
        for file, found in zip(files, now, strict=True):
            if found is None:
                raise _gone(file.path)
            if found != file:
                what = "size" if found.size != file.size else "version"
                raise InputChanged(
                    f"{file.path}: changed since the job was planned ({what} {getattr(found, what)}, "
                    f"was {getattr(file, what)}): put the planned file back, or start a new job"
                )

    def _described(self, paths: list[str]) -> list[InputFile | None]:
        infos = self.filesystem.get_file_info(paths)
        there = [info for info in infos if info.type == fs.FileType.File]
        known = dict(zip((info.path for info in there), self.described(there), strict=True))
        return [known.get(info.path) for info in infos]

    def patiently(self, path: str, action: Callable[[], T], again: Callable[[], None] = lambda: None) -> T:
        """Do something that may fail for a moment.

        Args:
            path: of the file that is read.
            action: done until it succeeds.
            again: done before each further attempt.

        Raises:
            Unreadable: it fails, and not because the file system is away.
            InputUnreadable: the file system is away.
            InputChanged: the file is gone.
        """
        for retry in range(RETRIES + 1):
            try:
                return action()
            except FileNotFoundError:
                raise _gone(path) from None
            except (OSError, pa.ArrowException, KeyError) as error:  # KeyError: a dictionary that a stream lacks
                again()
                reason = " ".join(str(error).split())[:300]
                if retry == RETRIES or not self._may_pass(error):
                    break
                time.sleep(self.pause * 2**retry)
        if not is_local(self.filesystem) and not self._answers(path):  # its rows are not to blame
            raise InputUnreadable(f"{path}: the file system does not answer ({reason}): go on later, with --resume")
        raise Unreadable(f"{path}: {reason}")

    def planned(self, path: str, action: Callable[[], T]) -> T:
        """Do something that the whole job needs.

        Raises:
            InputUnreadable: it fails, naming the file.
            InputChanged: the file is gone.
        """
        try:
            return self.patiently(path, action)
        except Unreadable as error:
            raise InputUnreadable(f"{error}: is it whole, and of its format?") from None

    def _may_pass(self, error: Exception) -> bool:
        """Whether trying again may help: on a local disk, what the system did not say is said by the file's content."""
        if is_local(self.filesystem) and isinstance(error, OSError) and error.errno is None:
            return False
        return is_transient(error)

    def _answers(self, path: str) -> bool:
        try:
            with self.filesystem.open_input_file(path) as source:
                source.read(1)
        except OSError:
            return False
        return True


def _gone(path: str) -> InputChanged:
    return InputChanged(f"{path}: is gone since the job was planned: put it back, or start a new job")
