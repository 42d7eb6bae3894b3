"""One command, timed from start to end, with the memory of all its processes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.processes import ENVIRONMENT

__all__ = ["Failed", "Ran", "run"]

SAMPLE_SECONDS = 0.05
TAIL = 600  # characters of what a command printed last


class Failed(RuntimeError):
    """A command ended with another status than 0."""


@dataclass(frozen=True)
class Ran:
    """A command that ended well.

    Attributes:
        seconds: from its start to its end.
        peak: bytes of it and all processes below it, shared pages counted once each process.
        said: the JSON that it printed last; empty where it printed none.
    """

    seconds: float
    peak: int
    said: dict[str, Any]


def run(command: Sequence[str], root: Path, threads: int = 1) -> Ran:
    """Run a command and wait for it.

    Raises:
        Failed: with the last of what it printed.
    """
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    memory = _Memory(process.pid)
    try:
        out, err = process.communicate()
    finally:
        process.kill()
        peak = memory.stop()
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise Failed(f"{' '.join(command[:4])} … ended with {process.returncode}: {(err or out).strip()[-TAIL:]}")
    last = out.strip().splitlines()[-1:] or [""]
    return Ran(seconds, peak, json.loads(last[0]) if last[0].startswith("{") else {})


class _Memory:
    """Samples the processes below one, in a thread."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            total = 0
            with suppress(psutil.Error):
                top = psutil.Process(self._pid)
                for process in (top, *top.children(recursive=True)):
                    with suppress(psutil.Error):
                        total += process.memory_info().rss
            self._peak = max(self._peak, total)

    def stop(self) -> int:
        """The most there was."""
        self._over.set()
        self._thread.join()
        return self._peak
