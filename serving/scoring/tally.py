"""How far a job is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tally"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows by what became of them: of the units that are committed, whichever run committed them.

    Attributes:
        total: rows of the whole job.
        scored, quarantined, filtered: of these, committed.
        resumed: of these, committed by earlier runs.
    """

    total: int
    scored: int = 0
    quarantined: int = 0
    filtered: int = 0
    resumed: int = 0

    @property
    def done(self) -> int:
        """Rows of which the job knows what became."""
        return self.scored + self.quarantined + self.filtered
