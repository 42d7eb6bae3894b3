"""Whether there is memory for one more version, before its workers find out that there is none."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import DeployError
from polyhead.serving.torchserve.launcher import Server

__all__ = ["available", "needed", "require_room"]

# About what a worker takes that holds no model: Python, numpy, torch, the runtime. One with a graph of 3 MB had 200 MiB
# of memory of its own before its first request; what batches need comes on top.
WORKER_BYTES = 256 << 20
# A graph's bytes on disk to its bytes in memory, while it is read and rewritten for this machine.
COPIES = 2
CGROUP = Path("/sys/fs/cgroup")
MEBIBYTE = 1 << 20


def require_room(server: Server, bundle: Bundle) -> None:
    """See to it that a version's workers will fit.

    Raises:
        DeployError: they will not, by what the machine and its container tell.
    """
    workers = server.settings.workers
    wanted, there = workers * needed(bundle), available()
    if wanted > there:
        raise DeployError(
            f"no room for {bundle.title}: {workers} workers need about {wanted // MEBIBYTE} MiB, "
            f"{there // MEBIBYTE} MiB are free: remove a version first, or give the server more memory"
        )


def needed(bundle: Bundle) -> int:
    """Bytes of memory that a worker of a bundle takes, roughly: of the largest graph, and of what every worker has."""
    files = bundle.manifest.files
    largest = max(sum(files[name].size for name in graph.files) for graph in bundle.manifest.graphs)
    return WORKER_BYTES + COPIES * largest


def available(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that are free: of the machine, or of the container where that has less."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no limit is the word `max`; no container, no file
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        # What the page cache holds is given up before anything is refused.
        for line in (cgroup / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "active_file"):
                used -= int(value)
        free = min(free, limit - used)
    return max(0, free)
