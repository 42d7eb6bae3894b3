"""What a file system's failure means: no room, worth trying again, or neither."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from polyhead.serving.scoring.errors import StoreFull

__all__ = ["again", "full", "is_full", "is_transient"]

Result = TypeVar("Result")

FULL = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
# pyarrow and fsspec wrap errors of the system and of object stores in text.
FULL_TEXTS = ("no space left on device", "disk quota exceeded", "quotaexceeded", "storagefull", "insufficientstorage")
PERMANENT = frozenset(
    [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.EINVAL]
)
PERMANENT_TEXTS = (
    "access_denied",
    "accessdenied",
    "no_such_bucket",
    "nosuchbucket",
    "no_such_key",
    "path does not exist",
    "invalid_access_key",
    "invalidaccesskey",
    "signature_does_not_match",
    "signaturedoesnotmatch",
)
# Half a minute in all: longer than a store's usual bout of 503, shorter than a person's patience.
ATTEMPTS, FIRST_SECONDS, MOST_SECONDS = 8, 0.1, 8.0


def is_full(error: BaseException) -> bool:
    """Whether there was no room: the disk, a quota, or the largest file that a process may write."""
    if not isinstance(error, OSError):
        return False
    text = str(error).lower()
    return error.errno in FULL or any(part in text for part in FULL_TEXTS)


def full(error: BaseException, where: str) -> StoreFull:
    """What is raised for it."""
    said = " ".join(str(error).split())
    return StoreFull(f"{where}: there is no room for the output ({said}): make room, then go on with --resume")


def is_transient(error: BaseException) -> bool:
    """Whether the same may succeed a moment later: a store's 5xx, a connection that broke, a time-out."""
    if not isinstance(error, OSError) or is_full(error) or error.errno in PERMANENT:
        return False
    if isinstance(error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)):
        return False
    text = str(error).lower()
    return not any(part in text for part in PERMANENT_TEXTS)


def again(call: Callable[[], Result], *, sleep: Callable[[float], None] = time.sleep) -> Result:
    """What `call` returns, tried again after transient failures, ever later and never in step with others.

    Raises:
        OSError: it failed for good, or too often.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except OSError as error:
            if not is_transient(error):
                raise
        most = min(MOST_SECONDS, FIRST_SECONDS * 2**attempt)
        sleep(most * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
    return call()
