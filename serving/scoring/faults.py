"""Why one row was not scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["STAGES", "Fault", "Stage"]

Stage = Literal["read", "decode", "collate", "forward", "answer"]
STAGES: tuple[Stage, ...] = ("read", "decode", "collate", "forward", "answer")


@dataclass(frozen=True, slots=True)
class Fault:
    """One row that goes to quarantine.

    Attributes:
        row: its number in its unit.
        stage: where it failed.
        type: the error's, as HTTP names it (`input_not_finite`), or `crashed`, `hung`, `unreadable`.
        message: what, got, fix.
        attempts: how often it was tried.
    """

    row: int
    stage: Stage
    type: str
    message: str
    attempts: int = 1
