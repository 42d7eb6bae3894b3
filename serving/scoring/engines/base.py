"""What every engine offers: units in, receipts out, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from polyhead.serving.scoring.job import Job
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.task import Again
from polyhead.serving.scoring.units import Unit

__all__ = ["ScoringEngine", "Watch"]

Watch: TypeAlias = Callable[[Progress], None]


class ScoringEngine(Protocol):
    """Spreads units over workers."""

    def run(
        self, job: Job, units: Sequence[Unit], watch: Watch, again: Mapping[int, Again] | None = None
    ) -> Iterator[Receipt]:
        """Score units. Closing the iterator ends the workers at once; what they had begun is a leftover attempt.

        Args:
            job: whose units these are.
            units: left to do.
            watch: told how far each worker is, from the caller's own thread while it waits for the next receipt.
            again: of units that were scored before, which rows are wanted now.

        Raises:
            ScoringError: the job cannot go on.
        """
        ...
