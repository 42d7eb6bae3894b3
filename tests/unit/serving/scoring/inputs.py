"""Inputs on disk, read through as a job does: planned by one source, read by another that knows only what is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from polyhead.models.spec import ModelSpec
from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.base import Source
from polyhead.serving.scoring.sources.opening import choose_reading, open_input, source_of
from polyhead.serving.scoring.units import Unit

__all__ = ["NUMBERS", "TEXTS", "Opened", "everything", "numbers_of", "spec_of"]

HEADS = {"score": {"kind": "regression"}}


def spec_of(**inputs: Any) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": HEADS})


TEXTS = spec_of(text={"kind": "text", "tokenizer": "tokenizer.json", "max_length": 8})
NUMBERS = spec_of(x={"kind": "tensor", "shape": [3]})


class Opened:
    """An input, planned; its units and what is read are through JSON and back, as a worker gets them."""

    def __init__(
        self, source: str | Path | Sequence[str | Path], spec: ModelSpec, unit_rows: int = 100_000, **settings: Any
    ) -> None:
        chosen = ScoreSettings(unit_rows=unit_rows, **settings)
        listing = open_input(source, chosen.format)
        planner = choose_reading(listing, spec, chosen)
        self.units = [
            Unit.of(orjson.loads(orjson.dumps(unit.plain())))
            for unit in source_of(planner, listing).plan(chosen.unit_rows)
        ]
        self.reading = Reading.of(orjson.loads(orjson.dumps(planner.plain())))
        assert self.reading == planner

    def source(self) -> Source:
        return source_of(self.reading)

    def chunks(self, chunk_rows: int = 1000, chunk_bytes: int = 1 << 20) -> list[Chunk]:
        source = self.source()
        found = []
        for unit in self.units:
            parts = list(source.read(unit, chunk_rows=chunk_rows, chunk_bytes=chunk_bytes))
            require_whole(unit, parts, chunk_rows)
            found += parts
        return found

    def faults(self) -> dict[int, Fault]:
        """By row, of an input that is one unit."""
        assert len(self.units) <= 1
        return {fault.row: fault for chunk in self.chunks() for fault in chunk.faults}


def require_whole(unit: Unit, chunks: Sequence[Chunk], chunk_rows: int) -> None:
    """Every row of the unit is in its chunks, once, in order."""
    first = 0
    for chunk in chunks:
        assert chunk.first == first
        first += chunk.total
        faulty = [fault.row for fault in chunk.faults]
        assert faulty == sorted(set(faulty))
        assert len(chunk.rows) + len(faulty) + chunk.filtered == chunk.total <= chunk_rows
        assert not set(faulty) & set(chunk.rows.tolist())
        assert all(chunk.first <= row < first for row in [*faulty, *chunk.rows.tolist()])
        assert chunk.rows.tolist() == sorted(chunk.rows.tolist())
        assert chunk.passed.num_rows == len(chunk.rows)
        assert {len(column) for column in chunk.inputs.values()} == {len(chunk.rows)}
        chunk.passed.validate(full=True)
    assert first == unit.rows


def everything(chunks: Sequence[Chunk], name: str) -> list[Any]:
    """The values of an input, or of a column that is passed on, of all rows."""
    found: list[Any] = []
    for chunk in chunks:
        column = chunk.inputs[name] if name in chunk.inputs else chunk.passed.column(name)
        found += column.to_pylist() if isinstance(column, pa.Array) else list(column)
    return found


def numbers_of(opened: Opened) -> list[int]:
    """The rows of the input that are read, counted through all units."""
    found: list[int] = []
    first = 0
    source = opened.source()
    for unit in opened.units:
        for chunk in source.read(unit, chunk_rows=1000, chunk_bytes=1 << 20):
            found += (chunk.rows + first).tolist()
        first += unit.rows
    return found
