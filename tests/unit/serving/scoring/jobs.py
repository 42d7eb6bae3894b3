"""A small job, and an engine that does its units in the driver's own process: what is committed is all that matters."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from polyhead.serving.scoring.attempts import attempt_name
from polyhead.serving.scoring.engines.base import Watch
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.job import Job, plan_bytes
from polyhead.serving.scoring.quarantine import QUARANTINE, quarantine_table
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.receipts import Receipt, Written
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.task import Again
from polyhead.serving.scoring.units import InputFile, Unit
from polyhead.serving.scoring.writing import PartWriter

SCHEMA = pa.schema([pa.field("id", pa.int64()), pa.field("double", pa.struct([("value", pa.float64())]))])
ROWS = 20  # of each unit


def units(count: int = 3, *, version: str = "1", size: int = 800) -> list[Unit]:
    """A plan over one file."""
    file = InputFile("/data/in.parquet", size, version)
    return [Unit(ordinal, (file,), ordinal * ROWS, ROWS) for ordinal in range(count)]


def job(destination: str, plan: Sequence[Unit], **changes: object) -> Job:
    """A job of that plan."""
    settings = changes.pop("settings", ScoreSettings())
    made = Job(
        destination=destination,
        bundle="/bundles/double",
        bundle_digest="ab" * 32,
        bundle_title="double/1.0",
        settings=settings,  # type: ignore[arg-type]
        reading=Reading("/data/in.parquet", "parquet", {"x": ("x",)}, SCHEMA.remove(1)),
        chosen={"graph": "fused-onnx", "runtime": "onnxruntime", "device": "cpu", "precision": "fp32"},
        schema=SCHEMA,
        plan=hashlib.sha256(plan_bytes(plan)).hexdigest(),
        units=len(plan),
        rows=sum(unit.rows for unit in plan),
        versions={"polyhead": "0.1.0"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class InlineEngine:
    """Writes the attempts that workers would write.

    Attributes:
        bad: numbers of rows in the input that cannot be scored.
        order: in which units come back.
        before: called before each unit.
        forge: what a worker says instead of the truth.
        done: ordinals of the units that were scored.
    """

    bad: frozenset[int] = frozenset({3, 21, 22})
    order: Callable[[Sequence[Unit]], Sequence[Unit]] = tuple
    before: Callable[[Unit], object] = hash
    forge: Callable[[Receipt], Receipt] = replace
    done: list[int] = field(default_factory=list)
    closed: bool = False

    def run(
        self, job: Job, units: Sequence[Unit], watch: Watch, again: Mapping[int, Again] | None = None
    ) -> Iterator[Receipt]:
        store = Store.of(job.destination)
        try:
            for unit in self.order(units):
                self.before(unit)
                self.done.append(unit.ordinal)
                yield self.forge(self.score(job, store, unit, (again or {}).get(unit.ordinal)))
        finally:
            self.closed = True

    def score(self, job: Job, store: Store, unit: Unit, again: Again | None) -> Receipt:
        attempt = uuid.uuid4().hex
        footer = {**job.footer, "unit": str(unit.ordinal)}
        wanted = range(unit.rows) if again is None else again.rows
        bad = [row for row in wanted if unit.first_row + row in self.bad]
        table = _scored(unit, [row for row in wanted if row not in bad])
        if again is not None:
            with store.open(again.base.path) as file:
                table = pa.concat_tables([pq.read_table(file), table]).sort_by("id")
        output = _written(store, attempt_name(unit.ordinal, attempt), table, footer)
        faults = quarantine_table(unit, [Fault(row, "decode", "input_not_finite", "row is NaN") for row in bad])
        name = attempt_name(unit.ordinal, attempt, ".quarantine")
        quarantine = _written(store, name, faults, footer) if bad else None
        kinds = Counter({"decode/input_not_finite": len(bad)} if bad else {})
        return Receipt(
            unit.ordinal, unit.rows, table.num_rows, len(bad), 0, output, quarantine, kinds, {"forward": 0.5}
        )


def _scored(unit: Unit, rows: Sequence[int]) -> pa.Table:
    ids = [unit.first_row + row for row in rows]
    return pa.table({"id": ids, "double": [{"value": 2.0 * number} for number in ids]}, schema=SCHEMA)


def _written(store: Store, name: str, table: pa.Table, footer: Mapping[str, str]) -> Written:
    with store.writing(name) as sink:
        writer = PartWriter(sink, table.schema)
        writer.write(table)
        writer.close(footer)
    return Written(name, table.num_rows, sink.size, sink.sha256)


def published(folder: Path) -> dict[str, bytes]:
    """All that readers see, byte for byte."""
    files = [path for path in folder.rglob("*") if path.is_file() and "_polyhead" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def ids(folder: str | Path) -> list[int]:
    """The rows of an output in order, as a reader finds them."""
    return list(pq.read_table(folder).column("id").to_pylist())


__all__ = ["QUARANTINE", "ROWS", "SCHEMA", "InlineEngine", "ids", "job", "published", "units"]
