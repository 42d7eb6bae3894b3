"""A worker whose runtime kills or hangs the process where an input holds certain numbers; else it is the real one.

The environment names them: `DEADLY="5:SIGSEGV,6:hang"`; with `DEADLY_MOST`, a file that holds a number, only so often.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyhead.serving.golden import Array
from polyhead.serving.runtimes.base import Runtime
from polyhead.serving.scoring.lines import attend
from polyhead.serving.scoring.worker import Worker


class DeadlyRuntime:
    """What a faulty kernel does to a process."""

    def __init__(self, runtime: Runtime, deadly: Mapping[float, str]) -> None:
        self.runtime, self.deadly = runtime, deadly
        self.lost = False
        self.name, self.device = runtime.name, runtime.device

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        for number, how in self.deadly.items():
            if (inputs[0] == number).any() and _counted():
                if how == "SIGSEGV":
                    ctypes.string_at(0)
                elif how == "lost":  # as a GPU's context is, by one bad access
                    self.lost = True
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                elif how == "hang":
                    time.sleep(600)
                else:
                    os.kill(os.getpid(), signal.Signals[how])
        return self.runtime.run(inputs, outputs)


def _counted() -> bool:
    """Whether it may happen once more."""
    if "DEADLY_MOST" not in os.environ:
        return True
    most = Path(os.environ["DEADLY_MOST"])
    left = int(most.read_text())
    most.write_text(str(left - 1))
    return left > 0


def deadly(hello: Mapping[str, Any]) -> Worker:
    worker = Worker(hello)
    pairs = [pair.split(":") for pair in os.environ.get("DEADLY", "").split(",") if pair]
    engine = worker.scorer.engine
    engine.runtime = DeadlyRuntime(engine.runtime, {float(number): how for number, how in pairs})
    return worker


if __name__ == "__main__":
    attend(deadly)
