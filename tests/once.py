"""What is made once for all processes of a test run, and for all runs of `make test`: models, which take minutes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["once"]

SHARED = "POLYHEAD_TEST_SHARED"  # a folder that several runs of pytest share; whoever names it removes it


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one process makes while the others wait for it.

    Args:
        name: of the folder, as `runs/digits`.
        make: given the folder's path, where nothing is yet.
    """
    if SHARED in os.environ:
        folder = Path(os.environ[SHARED]) / name
    elif "PYTEST_XDIST_WORKER" in os.environ:
        folder = factory.getbasetemp().parent / "shared" / name  # the run's own, that of a process lies in it
    else:
        folder = factory.getbasetemp() / "shared" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():  # a maker that failed leaves none, or its tests fail again here
            make(folder)
    return folder
