"""The driver: hands units out, and is the only one who says that one is done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Self, TypeAlias, cast

from polyhead.serving.bundle import Bundle
from polyhead.serving.scoring.budget import Budget
from polyhead.serving.scoring.engines.base import ScoringEngine
from polyhead.serving.scoring.errors import JobRefused, UnitFailed
from polyhead.serving.scoring.job import INNER, JOB, PLAN, Job, load_plan, plan_bytes
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.lock import Lock, locked
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.proposal import propose
from polyhead.serving.scoring.publishing import is_published, publish, totals
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.report import Report
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.sweeping import clear
from polyhead.serving.scoring.tally import Tally
from polyhead.serving.scoring.units import Unit

__all__ = ["Driver", "News", "commit_all", "interruptible", "nothing", "require_done"]

News: TypeAlias = Callable[[Progress | Tally], None]


class Driver:
    """Does a job, or what is left of it.

    Args:
        store: the destination.
        job: what is wanted.
        units: its plan.
        resume: go on with the job that the destination holds.
    """

    def __init__(self, store: Store, job: Job, units: Sequence[Unit], *, resume: bool = False) -> None:
        self.store = store
        self.job = job
        self.units = units
        self.resume = resume

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        source: str | Path | Sequence[str | Path],
        destination: str | Path,
        settings: ScoreSettings,
        *,
        resume: bool = False,
    ) -> Self:
        """The driver of a job; its input is looked at, nothing is written.

        Raises:
            JobRefused: the request is wrong, or the destination holds something else.
            InputUnreadable: a file is not of its format.
            RuntimeUnavailable, DeviceUnavailable: the bundle cannot be run as asked.
        """
        store = Store.of(destination)
        _require_free(store, resume=resume)
        job, units = propose(bundle, source, store, settings, _plan_begun(store))
        return cls(store, job, units, resume=resume)

    def run(self, engine: ScoringEngine, watch: News) -> Report:
        """Score what has no receipt yet, and publish.

        Args:
            engine: does the units.
            watch: told how far the workers are, and after every receipt how far the job is.

        Raises:
            JobRefused: the destination holds something else; JobLocked where another driver works on it.
            ScoringError: the job cannot go on. What was committed is kept.
            KeyboardInterrupt: SIGINT or SIGTERM came. What was committed is kept.
        """
        _require_free(self.store, resume=self.resume)
        with interruptible(), locked(self.store) as lock:
            ledger = self._begin(lock)
            began = time.monotonic()
            fresh = {}
            if not is_published(ledger):
                budget = Budget.of(self.job.settings, self.job.rows)
                left = ledger.left()
                receipts = engine.run(self.job, left, watch) if left else nothing()
                fresh = commit_all(receipts, ledger, lock, budget, watch)
                seconds = time.monotonic() - began
                require_done(ledger.left())
                publish(self.job, ledger, lock)
            else:
                seconds = 0.0
            lock.check()
            clear(self.store)
            report = Report.of(ledger, fresh, seconds)
        # Of a job that was finished before, perhaps with a larger budget: whoever gives one is told.
        Budget.of(self.job.settings, self.job.rows).check(
            report.quarantined, "they are in _quarantine, with the reasons"
        )
        return report

    def _begin(self, lock: Lock) -> Ledger:
        """The job as the destination holds it; written there where it holds none."""
        _require_free(self.store, resume=self.resume)
        content = self.job.content()
        if self.store.exists(JOB):
            begun = Job.read(self.store)
            self._require_same(begun)
            if begun.content() != content:  # the bundle was moved, or settings differ that decide nothing
                self.store.put(JOB, content)
            return Ledger.open(self.store, self.job, self.units)
        # The job is what counts: a plan without it is nothing.
        lock.check()
        self.store.put(PLAN, plan_bytes(self.units))
        self.store.put(JOB, content)
        return Ledger(self.store, self.job.identity, self.units)

    def _require_same(self, begun: Job) -> None:
        before = load_plan(self.store, begun)
        changes = begun.changes(self.job, before, self.units)
        if changes or begun.identity != self.job.identity:
            raise JobRefused(
                f"{self.store.where(JOB)}: is another job than this one ({'; '.join(changes)}): "
                "put that back as it was, or score into another directory"
            )


def commit_all(
    receipts: Iterator[Receipt], ledger: Ledger, lock: Lock, budget: Budget, watch: News, generation: int = 0
) -> dict[int, int]:
    """Commit what an engine hands in, until every unit is done.

    Returns:
        Units that were committed here, and how many rows of each were tried.

    Raises:
        BudgetSpent: too many rows were quarantined; the receipt that said so is kept.
        ScoringError: as the engine raises.
    """
    tally = _tally(ledger, budget.total)
    fresh: dict[int, int] = {}
    watch(tally)
    budget.check(tally.quarantined)
    with closing(cast("Generator[Receipt, None, None]", receipts)):
        for receipt in receipts:
            before = ledger.receipts.get(receipt.ordinal)
            if ledger.commit(receipt, lock, generation):
                fresh[receipt.ordinal] = receipt.read if before is None else before.quarantined
                tally = _counted(tally, receipt, before)
                watch(tally)
                budget.check(tally.quarantined)
    return fresh


def nothing() -> Iterator[Receipt]:
    """What there is to commit where no unit is left: no engine is started for it."""
    yield from ()


def require_done(left: Sequence[Unit]) -> None:
    """An engine that ends has done everything, or raised.

    Raises:
        UnitFailed: it has not.
    """
    if left:
        raise UnitFailed(f"{len(left)} units have no receipt, unit {left[0].ordinal} first: go on with --resume")


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a job as SIGINT does: cleanly."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tally(ledger: Ledger, total: int) -> Tally:
    """What earlier runs did."""
    counts = totals(list(ledger.receipts.values()))
    kept = (counts["scored"], counts["quarantined"], counts["filtered"])
    return Tally(total, *kept, resumed=sum(kept))


def _counted(tally: Tally, receipt: Receipt, before: Receipt | None) -> Tally:
    """With one more receipt, or another one of the same unit."""
    scored, quarantined = receipt.scored, receipt.quarantined
    if before is not None:
        scored, quarantined = scored - before.scored, quarantined - before.quarantined
    return replace(
        tally,
        scored=tally.scored + scored,
        quarantined=tally.quarantined + quarantined,
        filtered=tally.filtered + (receipt.filtered if before is None else 0),
    )


def _plan_begun(store: Store) -> tuple[Job, list[Unit]] | None:
    """The job that a destination holds, and its plan."""
    if not store.exists(JOB):
        return None
    job = Job.read(store)
    return job, load_plan(store, job)


def _require_free(store: Store, *, resume: bool) -> None:
    """A destination is empty, or holds a job that is gone on with."""
    if store.exists(JOB):
        if not resume:
            raise JobRefused(f"{store.where(JOB)}: a job was begun here: go on with --resume, or score elsewhere")
        return
    if store.local is not None and store.local.exists() and not store.local.is_dir():
        raise JobRefused(f"{store.local}: is a file: score into a directory")
    # What a driver leaves that died before it had written its job is no stranger's.
    foreign = next((name for name in store.names() if not name.startswith(f"{INNER}/")), None)
    if foreign is not None:
        raise JobRefused(f"{store.where(foreign)}: does not belong to a job: score into a new or empty directory")
