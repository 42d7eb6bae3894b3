"""A job in its place, planned and not begun, for the tests of what works on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import choose
from polyhead.serving.scoring.job import PLAN, Job, plan_bytes
from polyhead.serving.scoring.planning import plan
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.schema import output_schema
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.opening import choose_reading, open_input, source_of
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import Unit


@dataclass(frozen=True)
class Staged:
    """A job whose destination holds it."""

    job: Job
    units: list[Unit]
    settings: ScoreSettings

    def table(self, receipt: Receipt) -> pa.Table:
        """What a unit's attempt holds."""
        return pq.read_table(Path(self.job.destination) / receipt.output.path)

    def quarantine(self, receipt: Receipt) -> list[dict[str, Any]]:
        """The quarantined rows of an attempt."""
        if receipt.quarantine is None:
            return []
        return pq.read_table(Path(self.job.destination) / receipt.quarantine.path).to_pylist()


def stage(bundle: Bundle, source: Path, destination: Path, **settings: Any) -> Staged:
    """Plan the scoring of a table."""
    chosen = ScoreSettings(device="cpu", **settings)
    listing = open_input(source)
    reading = choose_reading(listing, bundle.spec, chosen)
    units = plan(source_of(reading, listing), chosen.unit_rows)
    planned = plan_bytes(units)
    graph = choose(bundle)
    job = Job(
        destination=str(destination),
        bundle=str(bundle.folder),
        bundle_digest=bundle.digest,
        bundle_title=bundle.title,
        settings=chosen,
        reading=reading,
        chosen={"graph": graph.graph.id, "runtime": graph.runtime, "device": "cpu", "precision": graph.graph.precision},
        schema=output_schema(bundle, chosen, reading.passed),
        plan=hashlib.sha256(planned).hexdigest(),
        units=len(units),
        rows=sum(unit.rows for unit in units),
    )
    store = Store.of(destination)
    store.put(PLAN, planned)
    store.put(job.name, orjson.dumps(job.plain()))
    return Staged(job, units, chosen)
