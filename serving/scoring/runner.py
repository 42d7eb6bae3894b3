"""One unit, from its rows to its files: the only way that data takes, whatever engine hands it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa

from polyhead.serving.scoring.attempts import attempt_name
from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.errors import UnitFailed
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Journal, Step
from polyhead.serving.scoring.merging import Merge
from polyhead.serving.scoring.quarantine import QUARANTINE, quarantine_table
from polyhead.serving.scoring.receipts import Receipt, Written
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.sources.base import Source
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import Unit
from polyhead.serving.scoring.writing import PartWriter

__all__ = ["run_unit"]


def run_unit(
    scorer: Scorer,
    source: Source,
    store: Store,
    unit: Unit,
    job: Mapping[str, Any],
    attempt: str,
    journal: Journal | None = None,
    only: Sequence[int] | None = None,
    base: Written | None = None,
) -> Receipt:
    """Score a unit into new files of the destination; nothing that is there is changed.

    Args:
        scorer: loaded.
        source: of the job.
        store: the destination.
        unit: as it was planned.
        job: what the footer says of the job, as texts or what JSON holds.
        attempt: the name of this attempt, which no other has.
        journal: is told of every step before it is done.
        only: rows of the unit that are scored, all those that were quarantined; all rows where None.
        base: with `only`, the file that has all other rows, which are taken over as they are.

    Raises:
        InputChanged: a file is not the one that was planned.
        UnitFailed: the rows that were read are not those that were planned.
        StoreFull: there is no room.
    """
    scorer.seconds.clear()
    journal = journal or Journal()
    journal.begin(Step("read", 0))
    chunks = source.read(unit, chunk_rows=scorer.chunk_rows, chunk_bytes=scorer.chunk_bytes)
    first = next(chunks, None)
    schema = scorer.schema(pa.schema([]) if first is None else first.passed.schema)
    merge = None if only is None or base is None else Merge(store, base, unit, only, schema)
    rest: Iterator[Chunk] = _chained(first, chunks)
    if merge is not None:
        rest = map(merge.part, rest)
    footer = {
        **{name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in job.items()},
        "unit": str(unit.ordinal),
        "source": unit.files[0].path if len(unit.files) == 1 else f"{len(unit.files)} files",
        "rows": f"{unit.first_row}:{unit.first_row + unit.rows}",
    }
    counts, generation = Counter[str](), int(job.get("generation", 0))
    faults: list[Fault] = []
    name, beside = (attempt_name(unit.ordinal, attempt, kind) for kind in ("", ".quarantine"))
    with (
        store.writing(name) as sink,
        PartWriter(sink, schema) as writer,
        closing(scorer.score(rest, journal)) as found,
    ):
        for scored in found if merge is None else merge.merged(found):
            writer.write(scored.table)
            faults += [replace(fault, attempts=fault.attempts + generation) for fault in scored.faults]
            counts.update(read=scored.total, filtered=scored.filtered)
        _require_all(unit, counts["read"])
        writer.close(footer)
    output = Written(name, writer.rows, sink.size, sink.sha256)
    kinds = Counter(f"{fault.stage}/{fault.type}" for fault in faults)
    quarantine = _quarantined(store, beside, unit, faults, footer) if faults else None
    return Receipt(
        unit.ordinal,
        counts["read"],
        writer.rows,
        len(faults),
        counts["filtered"],
        output,
        quarantine,
        dict(sorted(kinds.items())),
        dict(scorer.seconds),
        generation,
    )


def _chained(first: Chunk | None, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    if first is not None:
        yield first
        yield from rest


def _quarantined(store: Store, name: str, unit: Unit, faults: Sequence[Fault], footer: Mapping[str, str]) -> Written:
    with store.writing(name) as sink, PartWriter(sink, QUARANTINE) as writer:
        writer.write(quarantine_table(unit, faults))
        writer.close(footer)
    return Written(name, writer.rows, sink.size, sink.sha256)


def _require_all(unit: Unit, read: int) -> None:
    if read != unit.rows:
        raise UnitFailed(
            f"unit {unit.ordinal} of {unit.files[0].path} has {unit.rows} rows by the plan, and {read} were read: "
            "the input changed while it was read"
        )
