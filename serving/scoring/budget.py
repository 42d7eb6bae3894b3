"""How many rows a job may leave unscored."""

from __future__ import annotations

from dataclasses import dataclass

from polyhead.serving.scoring.errors import BudgetSpent
from polyhead.serving.scoring.settings import ScoreSettings

__all__ = ["Budget"]

FIX = (
    "what was scored is kept; look for the reasons in _polyhead/attempts/*/*.quarantine.parquet, "
    "and go on with --resume and a larger budget"
)


@dataclass(frozen=True)
class Budget:
    """Bounds of the rows that are quarantined.

    Attributes:
        rows: of the whole job; any number where None.
        ratio: of all rows of the job, 0 to 1; any where None.
        total: rows of the job.
    """

    rows: int | None
    ratio: float | None
    total: int

    @classmethod
    def of(cls, settings: ScoreSettings, total: int) -> Budget:
        """The budget that was given."""
        return cls(settings.max_bad_rows, settings.max_bad_ratio, total)

    def check(self, quarantined: int, fix: str = FIX) -> None:
        """See whether the job may go on.

        Args:
            quarantined: rows so far.
            fix: what to do when it may not.

        Raises:
            BudgetSpent: there are too many.
        """
        if self.rows is not None and quarantined > self.rows:
            raise BudgetSpent(f"{quarantined} rows were quarantined, --max-bad-rows is {self.rows}: {fix}")
        if self.ratio is not None and quarantined > self.ratio * self.total:
            raise BudgetSpent(
                f"{quarantined} of {self.total} rows were quarantined, --max-bad-ratio is {self.ratio:g}: {fix}"
            )
