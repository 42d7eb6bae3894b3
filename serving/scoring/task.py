"""What a worker is told to do, and how it is told: plain values, one JSON line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Care, Step
from polyhead.serving.scoring.receipts import Written
from polyhead.serving.scoring.units import Unit

__all__ = ["Again", "Task"]


@dataclass(frozen=True, slots=True)
class Again:
    """Rows of a unit that were quarantined, and are tried once more.

    Attributes:
        rows: their numbers in the unit, ascending.
        base: the unit's output so far, into which they are merged.
    """

    rows: Sequence[int]
    base: Written


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at a unit.

    Attributes:
        unit: to score.
        attempt: the name of what it writes, never used before.
        care: steps on which workers died.
        killers: rows that killed a worker alone.
        again: the rows that are wanted, where not all.
    """

    unit: Unit
    attempt: str
    care: Mapping[Step, Care] = field(default_factory=dict)
    killers: Mapping[int, Fault] = field(default_factory=dict)
    again: Again | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        again = self.again
        return {
            "unit": self.unit.plain(),
            "attempt": self.attempt,
            "care": [[step.stage, step.number, care] for step, care in self.care.items()],
            "killers": [asdict(fault) for fault in self.killers.values()],
            "only": None if again is None else list(again.rows),
            "base": None if again is None else asdict(again.base),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Back from JSON."""
        care: dict[Step, Care] = {Step(stage, number): kind for stage, number, kind in plain["care"]}
        killers = {fault["row"]: Fault(**fault) for fault in plain["killers"]}
        again = None if plain["only"] is None else Again(tuple(plain["only"]), Written(**plain["base"]))
        return cls(Unit.of(plain["unit"]), plain["attempt"], care, killers, again)
