"""What to do about a unit on which workers die: first nothing, then care, in the end without the row that kills."""

from __future__ import annotations

from dataclasses import dataclass, field

from polyhead.serving.scoring.beats import Place
from polyhead.serving.scoring.errors import UnitFailed
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Care, Step
from polyhead.serving.scoring.process import Death
from polyhead.serving.scoring.units import Unit

__all__ = ["Deaths"]

IDLE = 3  # deaths in a row that taught nothing
# Of one unit, by a signal from outside, which taught nothing sure: not the unit's fault, but it will not be done so.
OUTSIDE = 20


@dataclass
class Deaths:
    """The deaths of workers on one unit.

    A process may die of anything once. Where it dies a second time, the steps that it was in are done with care: row
    by row. A row in which it dies then is quarantined; where others may have killed it, only when that happens twice.

    Attributes:
        care: steps that are done with care.
        killers: rows that killed a worker alone.
    """

    unit: Unit
    care: dict[Step, Care] = field(default_factory=dict)
    killers: dict[int, Fault] = field(default_factory=dict)
    _count: int = 0
    _idle: int = 0
    _outside: int = 0
    _steps: frozenset[Step] = frozenset()
    _alone: frozenset[Place] = frozenset()
    _together: frozenset[Step] = frozenset()

    def add(self, death: Death) -> str:
        """Learn from a death; returns what will be done, for people.

        Raises:
            UnitFailed: nothing is left that could be done.
        """
        self._count += 1
        self._outside += not death.sure
        self._idle += 1
        # A row of a step whose rows are known to live alone is only the last that was told of.
        rows = [place for place in death.places if place.row is not None and self.care.get(place.step) == "first"]
        done = self._blame_rows(rows, death) if rows else self._blame_steps(death)
        if done:
            self._idle = 0
        if self._idle >= IDLE or self._outside >= OUTSIDE:
            raise UnitFailed(self._last_words(death))
        return f"{self.name}: a worker died ({death.cause}): {done or 'it is scored again'}"

    @property
    def name(self) -> str:
        """The unit as people know it."""
        unit = self.unit
        last = unit.first_row + unit.rows - 1
        return f"unit {unit.ordinal} ({unit.file_of(0)}, rows {unit.first_row} to {last})"

    def _blame_rows(self, places: list[Place], death: Death) -> str:
        """It died while rows were done one by one."""
        here = frozenset(Place(0, place.step, place.row) for place in places)
        found = here if len(here) == 1 and death.sure else here & self._alone
        self._alone = here
        for place in found:
            assert place.row is not None
            self.killers[place.row] = self._fault(place.row, place.step, death)
        return ", ".join(f"row {place.row} is quarantined" for place in found)

    def _fault(self, row: int, step: Step, death: Death) -> Fault:
        if death.cause == "hung":
            kind, what = "hung", "the worker gave no sign of life for --hang-seconds and was killed"
        else:
            kind, what = "crashed", f"the worker process died of it ({death.cause})"
        message = f"{what}, in stage {step.stage}, with this row alone: take the row out, or mend the model or runtime"
        return Fault(row, step.stage, kind, message, self._count)

    def _blame_steps(self, death: Death) -> str:
        """It died in whole steps."""
        here = frozenset(place.step for place in death.places if place.step.stage != "read")
        before, self._steps = self._steps, here
        if self._count == 1:
            return ""
        both = (here & before) or here
        fresh = sorted(both - self.care.keys(), key=str)
        if fresh:
            self.care.update(dict.fromkeys(fresh, "first"))
            return f"{_named(fresh)} will be done row by row"
        together = frozenset(step for step in both if self.care[step] == "first")
        found = together if len(together) == 1 and death.sure else together & self._together
        self._together = together
        self.care.update(dict.fromkeys(found, "alone"))
        return f"the rows of {_named(sorted(found, key=str))} live alone and will not be done together" if found else ""

    def _last_words(self, death: Death) -> str:
        steps = _named(sorted({place.step for place in death.places}, key=str)) or "before its first step"
        said = death.said.splitlines()
        last = f"; it said: {said[-1]}" if said else ""
        fix = "look at these rows, then go on with --resume"
        if death.cause == "SIGKILL":
            fix = "most likely there is too little memory: fewer --workers or smaller --batch-rows, then --resume"
        return f"{self.name}: {self._count} workers died of it, the last of {death.cause} in {steps}{last}: {fix}"


def _named(steps: list[Step]) -> str:
    return ", ".join(f"{step.stage} {step.number}" for step in steps)
