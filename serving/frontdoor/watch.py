"""Files that may change while the door is open: keys and certificates."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["Watch"]

SECONDS = 2.0  # between two looks

Stamp = tuple[tuple[str, int, int, int], ...]  # of each file: key, inode, time, size


class Watch:
    """Looks at files until it is closed.

    Args:
        files: by key.
        changed: told that one did; answers whether the new ones were looked into. Where not, it is told again.
    """

    def __init__(self, files: Mapping[str, Path], changed: Callable[[], bool]) -> None:
        self._files, self._changed = files, changed
        self._closed = threading.Event()
        self._stamp = self._look()

    def start(self) -> None:
        """Begin to look; what changed since this was made counts."""
        if self._files:
            threading.Thread(target=self._watch, name="front door files", daemon=True).start()

    def _look(self) -> Stamp:
        """What would change if a file did; a file that is not there for a moment counts as changed."""
        seen = []
        for key, path in self._files.items():
            with suppress(OSError):
                stat = path.stat()
                seen.append((key, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(seen)

    def _watch(self) -> None:
        while not self._closed.wait(SECONDS):
            now = self._look()
            if now != self._stamp and self._changed():
                self._stamp = now

    def close(self) -> None:
        """Look no more. Safe to call again."""
        self._closed.set()
