"""What is made once for all processes of a test run, which pytest-xdist's own session fixtures are not."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["once"]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one process makes while the others wait for it.

    Args:
        name: of the folder, as `runs/digits`.
        make: given the folder's path, where nothing is yet.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the run's own, that of a process lies in it
    folder = base / "shared" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():  # a maker that failed leaves none, or its tests fail again here
            make(folder)
    return folder
