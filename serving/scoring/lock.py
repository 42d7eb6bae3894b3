"""One driver at a time: a lock with a fencing token, which grows with every driver that ever held it.

On this machine's files it is `flock`: let go at the very moment that a driver dies. Elsewhere it is a `Lease`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from polyhead.serving.scoring.errors import JobLocked, JobRefused, StoreFull
from polyhead.serving.scoring.holder import HOLDER, Holder, refusal
from polyhead.serving.scoring.job import INNER
from polyhead.serving.scoring.lease import Lease
from polyhead.serving.scoring.store import Store

__all__ = ["LOCK", "FileLock", "Lock", "locked"]

LOCK = f"{INNER}/lock"


class Lock(Protocol):
    """The right to change a destination.

    Attributes:
        token: larger than that of every driver before.
    """

    token: int

    def check(self) -> None:
        """Called before every change that counts.

        Raises:
            JobLocked: another driver has taken over.
        """


class FileLock:
    """A lock on files of this machine, held as long as its process lives.

    Args:
        store: the destination.
        descriptor: of the locked file.
    """

    def __init__(self, store: Store, descriptor: int) -> None:
        last = Holder.read(store)
        self.token = 1 if last is None else last.token + 1
        self._inode = os.fstat(descriptor).st_ino
        self._path = None if store.local is None else store.local / LOCK
        # It tells others who holds the lock; the system's own lock is what counts, and gc must work where no room is.
        with contextlib.suppress(StoreFull):
            store.put(HOLDER, Holder.me(self.token).content())

    def check(self) -> None:
        """The system holds the lock; but somebody may have removed the folder and begun anew.

        Raises:
            JobLocked: the locked file is not there any more.
        """
        try:
            same = self._path is not None and self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            raise JobLocked(f"{self._path}: was removed while a driver held it: begin again with --resume")


@contextlib.contextmanager
def locked(store: Store) -> Iterator[Lock]:
    """Hold the lock of a destination.

    Raises:
        JobLocked: another driver holds it; the message says who.
    """
    if store.local is None:
        with Lease(store) as lease:
            yield lease
        return
    path = store.local / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked_file(store, path)
    try:
        yield FileLock(store, descriptor)
    finally:
        os.close(descriptor)


def _locked_file(store: Store, path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise refusal(store, Holder.read(store)) from None
        raise JobRefused(
            f"{path}: the file system knows no locks ({error.strerror}): score into another directory, "
            "or into an object store"
        ) from None
    return descriptor
