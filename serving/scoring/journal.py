"""What a worker is about to do, told before it does it: if it dies or hangs, this says on what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from polyhead.serving.scoring.faults import Fault, Stage

__all__ = ["Care", "Journal", "Step"]

# Of a step on which a worker died twice: run its rows alone first, then all that survived together, whose answers
# count, for they are those of an undisturbed run. `alone`: they died together too, so the answers alone must do.
Care: TypeAlias = Literal["first", "alone"]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that may kill or hang a process. The same in every run of the unit.

    Attributes:
        stage: of what is done.
        number: of the chunk, or of the batch, in the unit.
    """

    stage: Stage
    number: int


class Journal:
    """Tells a supervisor of every step; knows those that killed a worker before.

    Args:
        tell: called before every step, and before every row of a step that is run with care.
        care: steps on which workers died.
        killers: rows of the unit that killed a worker alone, by number. They still take their place in every step
            before that of their stage, so that all other rows are batched as ever; then they are quarantined.
    """

    def __init__(
        self,
        tell: Callable[[Step, int | None], None] = lambda _step, _row: None,
        care: Mapping[Step, Care] | None = None,
        killers: Mapping[int, Fault] | None = None,
    ) -> None:
        self.tell = tell
        self.care = care or {}
        self.killers = killers or {}

    def begin(self, step: Step, row: int | None = None) -> None:
        """Say what comes next: a step, or one row of it."""
        self.tell(step, row)
