"""Quarantined rows, tried again: those that succeed now get their places among the others.

A round has a number, its generation, and a job file of its own, `_polyhead/retry.json`, which says that it is under
way. Units are scored into new attempts and get new receipts, `receipts/<ordinal>.<generation>.json`, beside the old
ones. Readers see the old output until all of them are there. Then `_SUCCESS` is taken away, the parts are replaced one
by one, each at once, and the new `_manifest.json` and `_SUCCESS` follow. A crash before that changes nothing for
readers; one in between leaves an output without `_SUCCESS`, some of whose parts have more rows than its manifest says,
none fewer. Either way the same command again does what is left, and only that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from polyhead.models.spec import first_fault
from polyhead.serving.scoring.budget import Budget
from polyhead.serving.scoring.changes import values_changed
from polyhead.serving.scoring.driver import News, commit_all, interruptible, nothing, require_done
from polyhead.serving.scoring.engines.base import ScoringEngine
from polyhead.serving.scoring.engines.local import LocalEngine
from polyhead.serving.scoring.errors import JobRefused, OutputCorrupt
from polyhead.serving.scoring.job import JOB, RETRY, Job, load_plan
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.lock import Lock, locked
from polyhead.serving.scoring.publishing import is_published, part_name, publish, quarantine_name
from polyhead.serving.scoring.report import Report
from polyhead.serving.scoring.settings import FREE, ScoreSettings
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.sweeping import clear
from polyhead.serving.scoring.task import Again
from polyhead.serving.scoring.units import Unit

__all__ = ["CHANGEABLE", "retry"]

# No row that was scored would be scored otherwise with other values of these: they only let rows in.
CHANGEABLE = FREE | {"max_image_pixels", "max_row_bytes"}


def retry(
    destination: str | Path,
    changes: Mapping[str, Any] | None = None,
    watch: News = lambda _news: None,
    engine: ScoringEngine | None = None,
) -> Report:
    """Score the quarantined rows of a finished job once more.

    Args:
        destination: of the job.
        changes: settings that differ from the job's; those in `CHANGEABLE` may.
        watch: told how far the workers are, and after every receipt how far the job is.
        engine: does the units; processes of this machine where None.

    Raises:
        JobRefused: there is no job, it is not finished, or a setting may not be changed.
        JobLocked: a driver works on it.
        ScoringError: it cannot go on; the same again does what is left.
    """
    store = Store.of(destination)
    if not store.exists(JOB):
        raise JobRefused(f"{store.where(JOB)}: is not there: this is no directory of polyhead score")
    begun = Job.read(store)
    settings = _settings(begun, changes or {})
    with interruptible(), locked(store) as lock:
        units = load_plan(store, begun)
        ledger = Ledger.open(store, begun, units)
        job = _round(store, begun, ledger, settings)
        left = [unit for unit in units if _waits(ledger, unit, job.generation)]
        began = time.monotonic()
        again = {unit.ordinal: _again(ledger, unit) for unit in left}
        receipts = (engine or LocalEngine(settings)).run(job, left, watch, again) if left else nothing()
        fresh = commit_all(receipts, ledger, lock, Budget(None, None, job.rows), watch, job.generation)
        seconds = time.monotonic() - began
        require_done([unit for unit in left if unit.ordinal not in fresh])
        _finish(begun, ledger, lock)
        report = Report.of(ledger, fresh, seconds)
    # Every row of the quarantine is tried, then counted: fewer are left than before, never more.
    Budget.of(settings, job.rows).check(report.quarantined, "they are in _quarantine, with the reasons")
    return report


def _settings(job: Job, changes: Mapping[str, Any]) -> ScoreSettings:
    refused = sorted(set(changes) - CHANGEABLE)
    if refused:
        raise JobRefused(
            f"setting {refused[0]!r} decides rows that are scored already: only {', '.join(sorted(CHANGEABLE))} may "
            "be changed; score into another directory to change others"
        )
    # A budget is one run's: what the first one allowed itself does not bound this one.
    values = {**job.settings.model_dump(), "max_bad_rows": None, "max_bad_ratio": None, **changes}
    try:
        return ScoreSettings.model_validate(values)
    except ValidationError as error:
        raise JobRefused(f"settings: {first_fault(error, values)}") from None


def _round(store: Store, begun: Job, ledger: Ledger, settings: ScoreSettings) -> Job:
    """The round that is under way, or a new one."""
    require_done(ledger.left())
    if store.exists(RETRY):
        under_way = Job.read(store, RETRY)
        generation = under_way.generation
        changed = values_changed("setting", under_way.settings.deciding(), settings.deciding())
        if changed:  # units that are done were tried with the values of before
            raise JobRefused(
                f"a retry is under way with other settings ({'; '.join(changed)}): end it with those first"
            )
    elif is_published(ledger):
        generation = 1 + max((receipt.generation for receipt in ledger.receipts.values()), default=0)
    else:
        raise JobRefused(f"{store.address}: its job is not finished: go on with polyhead score --resume first")
    reading = begun.reading
    if reading.format != "csv":  # where the bound also tells how far a quote that is never closed reaches
        reading = replace(reading, max_row_bytes=settings.max_row_bytes)
    job = replace(begun, settings=settings, reading=reading, generation=generation, origin=begun.identity)
    store.put(RETRY, job.content())
    return job


def _waits(ledger: Ledger, unit: Unit, generation: int) -> bool:
    receipt = ledger.receipts[unit.ordinal]
    return receipt.quarantined > 0 and receipt.generation < generation


def _again(ledger: Ledger, unit: Unit) -> Again:
    """The rows that a unit has in quarantine, and where the others are."""
    receipt = ledger.receipts[unit.ordinal]
    name = quarantine_name(unit.ordinal)
    with ledger.store.open(name) as file:
        numbers: Sequence[int] = pq.read_table(file, columns=["row"]).column("row").to_pylist()
    if len(numbers) != receipt.quarantined:
        raise OutputCorrupt(f"{ledger.store.where(name)}: has {len(numbers)} rows, its receipt {receipt.quarantined}")
    rows = tuple(sorted(number - unit.first_row for number in numbers))
    return Again(rows, replace(receipt.output, path=part_name(unit.ordinal)))


def _finish(job: Job, ledger: Ledger, lock: Lock) -> None:
    if not is_published(ledger):
        publish(job, ledger, lock)
    lock.check()
    clear(ledger.store)
    ledger.store.delete(RETRY)
