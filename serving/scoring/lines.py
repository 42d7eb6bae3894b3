"""A worker's end of the line to its driver: JSON lines in, JSON lines out, and an end when the driver ends."""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import orjson

from polyhead.serving.errors import PolyheadError
from polyhead.serving.parent import die_with_parent
from polyhead.serving.scoring.beats import Beats
from polyhead.serving.scoring.errors import EngineLost
from polyhead.serving.scoring.process import LOST
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.storefaults import is_full, is_transient
from polyhead.serving.scoring.task import Task

__all__ = ["Scores", "attend"]


class Scores(Protocol):
    """What does the work."""

    def do(self, task: Task, beats: Beats) -> Receipt:
        """Score one unit, telling of every step before it is done."""
        ...


def attend(open_worker: Callable[[Mapping[str, Any]], Scores]) -> None:
    """Run until the standard input ends. The command's last three arguments are what `WorkerProcess` says.

    Args:
        open_worker: makes a worker of the first line.
    """
    said, page, words = map(int, sys.argv[-3:])
    # Also while something holds the interpreter and the input's end goes unseen.
    die_with_parent(signal.SIGKILL)
    faulthandler.enable(words, all_threads=True)
    beats = Beats(page)
    lines = _lines()
    started = time.monotonic()
    try:
        worker = open_worker(orjson.loads(next(lines)))
    except Exception as error:  # noqa: BLE001 - whatever it is, the driver says it
        _say(said, _failure(error))
        return
    _say(said, {"ready": time.monotonic() - started})
    for line in lines:
        beats.clear()
        try:
            answer: dict[str, Any] = {"receipt": worker.do(Task.of(orjson.loads(line)), beats).plain()}
        except EngineLost as error:
            traceback.print_exception(error)
            sys.stderr.flush()
            os._exit(LOST)  # where it was when it happened is on the page
        except Exception as error:  # noqa: BLE001 - as above
            answer = _failure(error)
        _say(said, answer)


def _lines() -> Iterator[bytes]:
    """The lines of the standard input; its end ends this process at once, whatever it is doing."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="driver", daemon=True).start()
    while True:
        yield lines.get()


def _say(descriptor: int, message: Mapping[str, Any]) -> None:
    data = memoryview(orjson.dumps(message) + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]


def _failure(error: Exception) -> dict[str, Any]:
    """An error, as the driver raises it again."""
    traceback.print_exception(error)
    kind = type(error).__name__
    ours = isinstance(error, PolyheadError)
    if is_full(error):
        kind, ours = "StoreFull", True
    text = " ".join(str(error).split()) or kind
    return {"error": text if ours else f"{kind}: {text}", "type": kind, "transient": is_transient(error)}
