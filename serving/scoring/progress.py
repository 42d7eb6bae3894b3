"""How far a worker is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Progress", "State"]

State: TypeAlias = Literal["starting", "scoring", "restarting", "ended"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What one worker does now.

    Attributes:
        worker: its number, from 0.
        state: `starting` while it loads the bundle; `restarting` after it died.
        ordinal: of the unit that it scores; None between units.
        rows: of that unit that are scored so far.
        total: rows of that unit.
        stage: of the last step that it began; empty between units.
        note: what a person should know, such as that a worker died and why; mostly empty.
    """

    worker: int
    state: State
    ordinal: int | None = None
    rows: int = 0
    total: int = 0
    stage: str = ""
    note: str = ""
