"""Leftovers of workers and drivers that died: attempts that no receipt names, files that were never whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from polyhead.serving.scoring.attempts import ATTEMPTS
from polyhead.serving.scoring.backends import TEMPORARY
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.job import JOB, Job, load_plan
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.lock import locked
from polyhead.serving.scoring.publishing import is_published
from polyhead.serving.scoring.store import Store

__all__ = ["Swept", "clear", "sweep"]


@dataclass(frozen=True)
class Swept:
    """What was removed.

    Attributes:
        attempts: files.
        bytes: of these; those that a part still links to give no room back.
    """

    attempts: int
    bytes: int

    def plain(self) -> dict[str, int]:
        """As JSON holds it."""
        return asdict(self)

    def words(self) -> str:
        """As a person reads it."""
        return (
            f"removed {self.attempts} leftover attempts, {self.bytes} bytes" if self.attempts else "nothing to remove"
        )


def sweep(destination: str | Path) -> Swept:
    """Remove what no receipt names, and of a finished job every attempt: its parts are published.

    Raises:
        JobRefused: there is no job.
        JobLocked: a driver works on it, whose workers' files have no receipts yet.
    """
    store = Store.of(destination)
    if not store.exists(JOB):
        raise JobRefused(f"{store.where(JOB)}: is not there: this is no directory of polyhead score")
    with locked(store) as lock:
        job = Job.read(store)
        ledger = Ledger.open(store, job, load_plan(store, job))
        kept: set[str] = set()
        if not is_published(ledger):
            files = [file for r in ledger.receipts.values() for file in (r.output, r.quarantine) if file is not None]
            kept = {file.path for file in files}
        lock.check()
        names = [name for name in store.names(ATTEMPTS) if name not in kept]
        size = sum(store.size(name) or 0 for name in names)
        if kept:
            for name in names:
                store.delete(name)
            store.delete_folder(TEMPORARY)
        else:
            clear(store)
    return Swept(len(names), size)


def clear(store: Store) -> None:
    """Remove all attempts. Only once everything is published."""
    store.delete_folder(ATTEMPTS)
    store.delete_folder(TEMPORARY)
