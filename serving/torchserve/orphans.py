"""What a process at the head of a container owes: to collect children that it did not start, when they end.

A worker whose TorchServe was killed becomes a child of the first process of its container, and stays in the table of
processes, ended, until that asks for its exit status.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import psutil

__all__ = ["adopt", "reap"]

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """Be the parent of what our children leave behind, also where this is not the first process (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap() -> list[int]:
    """Collect the orphans that have ended.

    What we start is of our own session, or leads one of its own: that has someone here who waits for it, and whose the
    exit status is. An orphan is of another's session; one that leads its own cannot be told from ours, and stays.

    Returns:
        Their process ids.
    """
    reaped: list[int] = []
    with suppress(ChildProcessError):
        # They are looked at first and collected then: a status may be what someone here waits for.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return reaped
        for child in psutil.Process().children():  # all of them: the first to be told of may be one that stays
            with suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
                ended = child.status() == psutil.STATUS_ZOMBIE
                if ended and os.getsid(child.pid) not in (child.pid, os.getsid(0)):
                    os.waitpid(child.pid, 0)
                    reaped.append(child.pid)
    return reaped
