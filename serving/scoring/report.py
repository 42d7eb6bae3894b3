"""What a job came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.parquet as pq

from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.publishing import faults, quarantine_name, totals
from polyhead.serving.scoring.store import Store

__all__ = ["Report"]

EXAMPLES = 12  # as many kinds of bad rows as anybody has seen in one table
FILES_LOOKED_INTO = 16


@dataclass(frozen=True)
class Report:
    """A finished job.

    Attributes:
        destination: its address.
        job: its identity.
        rows: of the input.
        scored, quarantined, filtered: what became of them.
        faults: quarantined rows by `stage/type`, the most frequent first.
        examples: of quarantined rows, as the quarantine has them: the first of each kind that was found.
        parts: files that hold scored rows.
        units: of the job; `resumed` of them were done by earlier runs.
        resumed: see there.
        fresh: rows that this run did.
        seconds: that this run took, from its first unit to the last receipt.
        stages: seconds of all workers of this run, by stage.
        generation: times that quarantined rows were tried again.
    """

    destination: str
    job: str
    rows: int
    scored: int
    quarantined: int
    filtered: int
    faults: Mapping[str, int]
    examples: tuple[Mapping[str, Any], ...]
    parts: int
    units: int
    resumed: int
    fresh: int
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    generation: int = 0

    @property
    def rows_per_second(self) -> float:
        """Of this run; 0 where it had nothing to do."""
        return self.fresh / self.seconds if self.seconds > 0 else 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "rows_per_second": self.rows_per_second}

    @classmethod
    def of(cls, ledger: Ledger, fresh: Mapping[int, int], seconds: float) -> Report:
        """The report of a ledger that has a receipt of every unit.

        Args:
            ledger: of the job.
            fresh: units that this run did, and how many rows of each.
            seconds: that it took.
        """
        receipts = [ledger.receipts[unit.ordinal] for unit in ledger.units]
        counts, kinds = totals(receipts), faults(receipts)
        stages: dict[str, float] = {}
        for ordinal in fresh:
            for stage, spent in ledger.receipts[ordinal].seconds.items():
                stages[stage] = stages.get(stage, 0.0) + spent
        return cls(
            destination=ledger.store.address,
            job=ledger.identity,
            rows=counts["read"],
            scored=counts["scored"],
            quarantined=counts["quarantined"],
            filtered=counts["filtered"],
            faults=dict(kinds.most_common()),
            examples=_examples(ledger.store, [r.ordinal for r in receipts if r.quarantine is not None], len(kinds)),
            parts=len(receipts),
            units=len(receipts),
            resumed=len(receipts) - len(fresh),
            fresh=sum(fresh.values()),
            seconds=seconds,
            stages=stages,
            generation=max((receipt.generation for receipt in receipts), default=0),
        )


def _examples(store: Store, ordinals: list[int], kinds: int) -> tuple[Mapping[str, Any], ...]:
    """The first row of each kind, out of the first few files of the quarantine."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for ordinal in ordinals[:FILES_LOOKED_INTO]:
        with store.open(quarantine_name(ordinal)) as file:
            for batch in pq.ParquetFile(file).iter_batches(1024):
                for row in batch.to_pylist():
                    found.setdefault((row["stage"], row["type"]), row)
                break  # the first rows show enough
        if len(found) >= min(kinds, EXAMPLES):
            break
    return tuple(found.values())[:EXAMPLES]
