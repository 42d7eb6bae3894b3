"""A page of memory that a worker writes and its supervisor reads: signs of life, and what each thread is about to do.

A message for every step would cost the driver more than some models' forward passes. A page costs it nothing until it
looks, and what a worker wrote there is still there when the worker was killed.
"""

from __future__ import annotations

import mmap
import struct
import threading
from dataclasses import dataclass

from polyhead.serving.scoring.faults import STAGES
from polyhead.serving.scoring.journal import Step

__all__ = ["BYTES", "Beats", "Place"]

ROWS = struct.Struct("=q")
SLOT = struct.Struct("=qQqqq")  # beats, thread, stage, number, row; stage and row -1 where there is none
SLOTS = 64  # threads of one worker that do steps
BYTES = ROWS.size + SLOTS * SLOT.size


@dataclass(frozen=True, slots=True)
class Place:
    """Where one thread of a worker is.

    Attributes:
        thread: its identity, as `threading.get_ident` says.
        step: that it began last.
        row: of the step, where rows are done one by one.
    """

    thread: int
    step: Step
    row: int | None


class Beats:
    """The page.

    Args:
        descriptor: of a file of `BYTES` bytes that both processes have open.
    """

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, BYTES)
        self._slots: dict[int, int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()

    def clear(self) -> None:
        """Forget what was: a new unit begins."""
        with self._lock:
            self._slots.clear()
            self._page[:] = bytes(BYTES)

    def tell(self, step: Step, row: int | None) -> None:
        """The calling thread is about to do this."""
        thread = threading.get_ident()
        place = self._slots.get(thread)
        if place is None:
            with self._lock:
                place = self._slots[thread] = ROWS.size + min(len(self._slots), SLOTS - 1) * SLOT.size
        count = SLOT.unpack_from(self._page, place)[0] + 1
        SLOT.pack_into(
            self._page, place, count, thread, STAGES.index(step.stage), step.number, -1 if row is None else row
        )

    def set_rows(self, rows: int) -> None:
        """So many rows of the unit are scored."""
        ROWS.pack_into(self._page, 0, rows)

    @property
    def rows(self) -> int:
        """Rows of the unit that are scored."""
        return int(ROWS.unpack_from(self._page, 0)[0])

    @property
    def count(self) -> int:
        """Grows with every sign of life."""
        slots = range(ROWS.size, BYTES, SLOT.size)
        return self.rows + sum(int(SLOT.unpack_from(self._page, place)[0]) for place in slots)

    def places(self) -> list[Place]:
        """What each thread began last."""
        found = []
        for at in range(ROWS.size, BYTES, SLOT.size):
            count, thread, stage, number, row = SLOT.unpack_from(self._page, at)
            if count:
                found.append(Place(thread, Step(STAGES[stage], number), None if row < 0 else row))
        return found
