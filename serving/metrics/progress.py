"""Whether a model's workers get on: how many requests they have answered, read from what they count."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from polyhead.serving.bundle import Bundle
from polyhead.serving.metrics.cells import CellsFile

__all__ = ["Progress"]

REQUESTS = "polyhead_requests"


class Progress:
    """Reads the counts of living workers.

    Args:
        folder: where the workers count.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._known = folder, dict[str, CellsFile]()
        self._lock = threading.Lock()

    def answered(self, bundle: Bundle) -> float:
        """Requests that a version's living workers have answered so far; less after one of them ended."""
        total, wanted = 0.0, (bundle.spec.name, bundle.spec.version)
        with self._lock, suppress(OSError):  # a file may go while it is read: its worker has ended
            files = CellsFile.all_in(self._folder, self._known)
            self._known = {file.path.name: file for file in files}  # without those that have gone
            for file in files:
                if (file.about.model, file.about.version) == wanted:
                    place = next(series.place for series in file.about.series if series.family == REQUESTS)
                    total += float(file.read()[place].sum())
        return total
