"""The ledger: one receipt a unit, written by the driver alone. What has a receipt is done, and is done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import orjson

from polyhead.serving.scoring.attempts import ATTEMPTS
from polyhead.serving.scoring.errors import OutputCorrupt, UnitFailed
from polyhead.serving.scoring.job import INNER, Job
from polyhead.serving.scoring.lock import Lock
from polyhead.serving.scoring.receipts import Receipt, Written
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import Unit

__all__ = ["RECEIPTS", "Ledger"]

RECEIPTS = f"{INNER}/receipts"
READERS = 16  # receipts read at a time: on an object store each is a round trip


class Ledger:
    """The receipts of a job, by ordinal; of each unit, those of the highest generation.

    Args:
        store: the destination.
        identity: of the job.
        units: the plan.
    """

    def __init__(self, store: Store, identity: str, units: Sequence[Unit]) -> None:
        self.store = store
        self.identity = identity
        self.units = units
        self.receipts: dict[int, Receipt] = {}

    @classmethod
    def open(cls, store: Store, job: Job, units: Sequence[Unit]) -> Ledger:
        """The ledger as it lies in the store.

        Raises:
            OutputCorrupt: naming a receipt that is damaged, or of another job.
        """
        ledger = cls(store, job.root, units)
        names = store.names(RECEIPTS)
        with ThreadPoolExecutor(READERS) as pool:
            for name, receipt in zip(names, pool.map(ledger._read, names), strict=True):
                if not 0 <= receipt.ordinal < len(units) or name != _name(receipt):
                    raise OutputCorrupt(f"{store.where(name)}: is no receipt of this job: remove it")
                known = ledger.receipts.get(receipt.ordinal)
                if known is None or known.generation < receipt.generation:
                    ledger.receipts[receipt.ordinal] = receipt
        return ledger

    def left(self) -> list[Unit]:
        """Units without a receipt, in order."""
        return [unit for unit in self.units if unit.ordinal not in self.receipts]

    def check(self, receipt: Receipt) -> None:
        """Believe a receipt only if it is one of the plan, adds up, and what it names is there.

        Raises:
            UnitFailed: naming what is wrong with it.
        """
        if not 0 <= receipt.ordinal < len(self.units):
            raise UnitFailed(f"a worker answered for unit {receipt.ordinal}, which is not in the plan")
        unit = self.units[receipt.ordinal]
        if not receipt.adds_up or receipt.read != unit.rows:
            raise UnitFailed(
                f"unit {unit.ordinal} ({unit.file_of(0)}) has {unit.rows} rows, its worker answered for "
                f"{receipt.read}: {receipt.scored} scored, {receipt.quarantined} quarantined, {receipt.filtered} "
                "filtered out: nothing of it was kept; this is a fault of Polyhead, please report it"
            )
        folder = f"{ATTEMPTS}/{unit.ordinal:08d}/"
        for file in _files(receipt):
            size = self.store.size(file.path) if file.path.startswith(folder) else None
            if size != file.size:
                raise UnitFailed(
                    f"{self.store.where(file.path)}: has {'no' if size is None else size} bytes, its worker wrote "
                    f"{file.size}: is the destination shared by all workers?"
                )

    def commit(self, receipt: Receipt, lock: Lock, generation: int = 0) -> bool:
        """Write a unit's receipt; from then on the unit is done.

        Returns:
            Whether it counts: of a unit that has one, a second receipt is ignored.

        Raises:
            UnitFailed: it is not to be believed.
            JobLocked: another driver has taken over.
        """
        known = self.receipts.get(receipt.ordinal)
        if known is not None and known.generation >= generation:
            return False
        self.check(receipt)
        lock.check()
        receipt = replace(receipt, generation=generation)
        content = {"job": self.identity, "token": lock.token, "receipt": receipt.plain()}
        self.store.put(_name(receipt), orjson.dumps(content))
        self.receipts[receipt.ordinal] = receipt
        return True

    def _read(self, name: str) -> Receipt:
        try:
            content: Mapping[str, object] = orjson.loads(self.store.read(name))
            receipt = Receipt.of(content["receipt"])  # type: ignore[arg-type]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            where = self.store.where(name)
            raise OutputCorrupt(f"{where}: is damaged ({error!r}): remove it to score the unit again") from None
        if content["job"] != self.identity:
            raise OutputCorrupt(f"{self.store.where(name)}: is of another job: remove it")
        return receipt


def _name(receipt: Receipt) -> str:
    again = f".{receipt.generation}" if receipt.generation else ""
    return f"{RECEIPTS}/{receipt.ordinal:08d}{again}.json"


def _files(receipt: Receipt) -> list[Written]:
    return [receipt.output, *([] if receipt.quarantine is None else [receipt.quarantine])]
