"""The lines that nginx prints, as lines of our log."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from polyhead.serving.logs import json_line
from polyhead.serving.settings import LogFormat

__all__ = ["LogLines", "cleaned"]

LOGGER = "polyhead.frontdoor"
MOST = 20  # lines of nginx's own a second: whoever sends us bad requests must not fill a disk
# 2026/11/21 22:00:00 [warn] 12#12: *5 an upstream response …
LINE = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(?P<level>\w+)\] \d+#\d+: (?:\*\d+ )?(?P<message>.*)$")
# TorchServe resets the connection behind an answer of 400 and above, which has arrived by then; its own end we notice.
USUAL = "(104: Connection reset by peer) while reading upstream"
# What nginx puts at the end of a line; and what follows a path, up to a blank, which no address holds.
SENT, QUERY = re.compile(r', (host|referrer): ".*$', re.DOTALL), re.compile(r"[?]\S*")
LEVELS = {"warn": "warning", "crit": "critical", "alert": "critical", "emerg": "critical", "notice": "info"}


def cleaned(line: str) -> str:
    """A line of nginx's error log without what a client wrote of its own accord: query, Host, Referer, what no terminal
    shows.
    """
    line = QUERY.sub("", SENT.sub("", line))
    return "".join(character for character in line if character.isprintable())


class LogLines:
    """Writes nginx's lines.

    Args:
        write: one line.
        log_format: of the lines; requests are always JSON.
    """

    def __init__(self, write: Callable[[str], None], log_format: LogFormat) -> None:
        self._write, self._format = write, log_format
        self._lock = threading.Lock()
        self._second, self._count = 0, 0

    def access(self, line: str) -> None:
        """A request, as JSON."""
        self._write(line)

    def error(self, line: str) -> None:
        """A line of nginx's error log, `cleaned`."""
        if USUAL in line or not self._room():
            return
        found = LINE.match(line)
        if found is None:
            self.say(line, "warning")
        else:
            self.say(found["message"], LEVELS.get(found["level"], found["level"]))

    def say(self, message: str, level: str = "info") -> None:
        """A line of our own."""
        self._write(json_line(message, level, LOGGER) if self._format == "json" else f"front door: {message}")

    def _room(self) -> bool:
        """Whether one more line may be written in this second; says once that there may not."""
        with self._lock:
            now = int(time.monotonic())
            if now != self._second:
                dropped, self._second, self._count = self._count - MOST, now, 0
                if dropped > 0:
                    self.say(f"{dropped} more lines of nginx in one second were left out", "warning")
            self._count += 1
            return self._count <= MOST
