"""A worker process: `python -m polyhead.serving.scoring.worker`, started and watched by a `Supervisor`.

The first line on its standard input says which job it works for, every further line is a unit; it answers each with
one line. It ends with its driver, however that one dies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyhead.serving.bundle import Bundle
from polyhead.serving.scoring.beats import Beats
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.filesystems import is_local, resolve
from polyhead.serving.scoring.job import Job
from polyhead.serving.scoring.journal import Journal, Step
from polyhead.serving.scoring.lines import attend
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.runner import run_unit
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.listing import address_of
from polyhead.serving.scoring.sources.opening import source_of
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.task import Task

__all__ = ["Worker"]


class Worker:
    """One job's bundle and input, opened.

    Args:
        hello: see `polyhead.serving.scoring.engines.hello`.

    Raises:
        BundleError: the bundle is not whole.
        JobRefused: it is not the one that the job was planned with, or this machine does not see what it must.
    """

    def __init__(self, hello: Mapping[str, Any]) -> None:
        self.job = Job.of(hello["job"], hello["destination"])
        self.store = Store.of(self.job.destination)
        folder, here = Path(self.job.bundle), os.uname().nodename
        if not folder.is_dir():
            raise JobRefused(f"bundle {folder} is not on {here}: every machine that scores must see it at this path")
        if not self.store.exists(self.job.name):
            raise JobRefused(
                f"{self.job.destination} does not hold this job as {here} sees it: "
                "every machine that scores must see the destination at this address"
            )
        bundle = Bundle.open(folder)
        if bundle.digest != self.job.bundle_digest:
            raise JobRefused(
                f"bundle {folder} is not the one of the job ({bundle.digest[:12]}, was {self.job.bundle_digest[:12]}): "
                "put that one back, or score into another directory"
            )
        local = is_local(resolve(address_of(self.job.reading.source))[0])
        self.scorer = Scorer.load(bundle, ScoreSettings.model_validate(hello["settings"]), local=local)
        self.source = source_of(self.job.reading)

    def do(self, task: Task, beats: Beats) -> Receipt:
        """Score one unit."""
        engine, again = self.scorer.engine, task.again
        before = engine.rows

        def tell(step: Step, row: int | None) -> None:
            beats.set_rows(engine.rows - before)
            beats.tell(step, row)

        journal = Journal(tell, task.care, task.killers)
        return run_unit(
            self.scorer,
            self.source,
            self.store,
            task.unit,
            self.job.footer,
            task.attempt,
            journal,
            only=None if again is None else again.rows,
            base=None if again is None else again.base,
        )


if __name__ == "__main__":
    attend(Worker)
