"""Standard error for a server: whoever reads it slowly, or not at all, stops nobody.

A pipe that nobody empties takes 64 KiB, a stopped terminal less. Then a write waits, and with it the thread that
writes; behind it wait nginx and TorchServe, whose lines we pass on, and nobody is answered any more.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from polyhead.serving.logs import json_line
from polyhead.serving.settings import LogFormat

__all__ = ["LostLines", "Outlet", "unstalled"]

MOST = 4 * 1024 * 1024  # characters that wait to be written
CLOSE_SECONDS = 2.0  # for what still waits, when the server ends
PIECE = 65536  # bytes of one write


class Outlet(io.TextIOBase):
    """A stream whose writes never wait: a thread of its own passes them on to another one.

    Of what does not fit into its memory, whole writes are left out, and a line says how many.

    Args:
        stream: that has a descriptor; what is written after `close` goes to it at once.
        log_format: of the line that tells what was left out.
        most: characters that may wait.
    """

    def __init__(self, stream: TextIO, log_format: LogFormat = "text", most: int = MOST) -> None:
        self._stream, self._format, self._most = stream, log_format, most
        self._descriptor = stream.fileno()
        self._waiting: list[str] = []
        self._size = self._untold = 0  # characters that wait; lines that were left out, and no line has said so yet
        self.lost = 0  # lines that were left out, in all
        self._ended = self._broken = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._pass_on, name="outlet", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8."""
        return "utf-8"

    def fileno(self) -> int:
        """Of the stream behind it."""
        return self._descriptor

    def isatty(self) -> bool:
        """Of the stream behind it."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Take a text; never waits."""
        with self._changed:
            if not self._ended:
                if self._broken or (self._waiting and self._size + len(text) > self._most):
                    self._untold += 1
                    self.lost += 1
                else:
                    self._waiting.append(text)
                    self._size += len(text)
                    self._changed.notify()
                return len(text)
        if not self._thread.is_alive() and not self._broken:
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def close(self) -> None:
        """Pass on what waits, as far as a reader takes it within two seconds."""
        with self._changed:
            if self._ended:  # also called when it is collected
                return
            self._ended = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                text, untold = "".join(self._waiting), self._untold
                self._waiting.clear()
                self._size = self._untold = 0
            if untold:
                text += self._told(untold)
            try:
                self._put(text.encode("utf-8", "backslashreplace"))
            except OSError:  # the reader is gone for good; the server is not there for its log
                with self._changed:
                    self._broken = True
                    self._waiting.clear()
                return

    def _put(self, data: bytes) -> None:
        # By the descriptor: a thread that waits inside of a stream's lock would let the process end in an error.
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest[:PIECE]) :]
            except BlockingIOError:  # somebody has made it a stream that does not wait
                select.select([], [self._descriptor], [])

    def _told(self, lost: int) -> str:
        text = f"{lost} lines of the log are missing here: nobody read them in time"
        return (json_line(text, "warning") if self._format == "json" else text) + "\n"


class LostLines(Collector):
    """How many lines an outlet has left out, for the page of metrics."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def collect(self) -> Iterator[Metric]:
        """One counter."""
        text = "Lines of the log that were left out, as nobody read them in time"
        yield CounterMetricFamily("polyhead_log_lines_lost", text, value=self._outlet.lost)


@contextmanager
def unstalled(log_format: LogFormat) -> Iterator[Outlet | None]:
    """Have `sys.stderr` be an outlet for a while; one without a descriptor, as in memory, stays as it is."""
    stream = sys.stderr
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        yield None
        return
    stream.flush()
    outlet = Outlet(stream, log_format)
    sys.stderr = cast(TextIO, outlet)
    try:
        yield outlet
    finally:
        sys.stderr = stream
        outlet.close()
