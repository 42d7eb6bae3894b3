"""What the front door answered, counted by route and status: also what never reached a worker, as nginx's own refusals.

nginx writes a short line for each request into a pipe, many at a time; we add them up. Of a request nothing but its
route, its status and its time is in there.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["DIRECTIVES", "PIPE", "Counts"]

PIPE = "counts"
# Of nginx's configuration. What is written at once must be at most 4096 bytes: so much enters a pipe in one piece, also
# where several of nginx's processes write.
DIRECTIVES = """\
map $polyhead_path $polyhead_route {
    default other;
    "~^/(predictions/|v1/models/[^/]+:predict$|v2/models/.+/infer$)" predict;
    "~^/v2/health/" health;
    "~^/metrics$" metrics;
    "~^/v2(/|$)" metadata;
    "~^/(docs|console/.*|openapi[.]json)?$" console;
}
log_format polyhead_counts "$polyhead_route $status $request_time";
"""
LINE = re.compile(rb"([a-z]+) (\d{3}) (\d+\.\d+)")
ROOM = 1024 * 1024  # bytes that wait in the pipe while this process has no time; nginx waits for us beyond
PREDICT = "predict"
# Statuses of predictions that are there from the beginning: a rate knows nothing of a series that has just appeared.
USUAL = ("200", "400", "401", "404", "413", "422", "429", "500", "503")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counts(Collector):
    """Reads what nginx writes into the pipe, until it is closed.

    Args:
        folder: where the pipe is made; nginx's own.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / PIPE
        self._pipe = -1
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, str]] = Counter({(PREDICT, status): 0 for status in USUAL})
        self._times, self._sum = [0] * (len(SECONDS) + 1), 0.0  # of predictions: what else is asked costs nothing
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Make the pipe, and read from it."""
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path, 0o600)
        # To read and to write, so that neither we nor nginx wait for the other to open it, and it has no end.
        self._pipe = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        with suppress(OSError):  # more than this user may have: then it is 64 KiB
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, ROOM)
        self._thread = threading.Thread(target=self._read, name="front door counts", daemon=True)
        self._thread.start()

    def describe(self) -> list[Metric]:
        """Nothing: the families are known."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Answers by route and status, and the times of predictions."""
        answers = CounterMetricFamily(
            "polyhead_front_requests", "Requests that the front door answered", labels=("route", "status")
        )
        seconds = HistogramMetricFamily(
            "polyhead_front_request_seconds", "Time from a request's first byte to the answer's last", labels=("route",)
        )
        with self._lock:
            for (route, status), count in sorted(self._answers.items()):
                answers.add_metric([route, status], count)
            bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
            buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(self._times), strict=True)]
            seconds.add_metric([PREDICT], buckets, self._sum)
        yield from (answers, seconds)

    def _read(self) -> None:
        rest = b""
        while True:
            *lines, rest = (rest + os.read(self._pipe, 65_536)).split(b"\n")
            if self._closed.is_set():
                return
            if lines:
                self._add(Counter(lines))  # most lines of a moment are the same: times are in milliseconds

    def _add(self, lines: Counter[bytes]) -> None:
        with self._lock:
            for line, count in lines.items():
                found = LINE.fullmatch(line)
                if found is None:  # the one that wakes the reader at the end
                    continue
                route, status, seconds = found[1].decode(), found[2].decode(), float(found[3])
                self._answers[route, status] += count
                if route == PREDICT:
                    self._times[bisect_left(SECONDS, seconds)] += count
                    self._sum += count * seconds

    def close(self) -> None:
        """Stop reading. Safe to call again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closed.set()
        os.write(self._pipe, b"\n")
        thread.join()
        os.close(self._pipe)
