"""Chunks of a table in, answers out, in order: decoded ahead, run in windows, each row scored or at fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Self

import numpy as np
import pyarrow as pa

from polyhead.serving.bundle import Bundle
from polyhead.serving.cores import available_cores
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.loading import load_engine
from polyhead.serving.scoring.ahead import ahead
from polyhead.serving.scoring.batching import CHUNK_BYTES, Batching, Window, chunk_rows
from polyhead.serving.scoring.cells import taken
from polyhead.serving.scoring.chunks import Chunk
from polyhead.serving.scoring.errors import ScoringError
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.inputs import Inputs, joined
from polyhead.serving.scoring.journal import Journal, Step
from polyhead.serving.scoring.ladder import fault_of
from polyhead.serving.scoring.passes import Answered, Batch, Passes
from polyhead.serving.scoring.schema import head_fields, options_of, wanted_heads
from polyhead.serving.scoring.settings import ScoreSettings

__all__ = ["Scored", "Scorer"]

AHEAD_BYTES = 2 * CHUNK_BYTES  # of chunks that wait to be decoded, and of rows that wait to be run
BEFORE_FORWARD = ("read", "decode")


@dataclass(frozen=True, slots=True)
class Scored:
    """Consecutive rows of a unit, each of them scored, at fault or filtered out.

    Attributes:
        total: rows of the unit that it stands for.
        rows: that were scored: their numbers in the unit, `int64`, ascending.
        table: their passed columns and answers, in that order.
        faults: rows that were not, in their order.
        filtered: rows that the filter left out.
    """

    total: int
    rows: Array
    table: pa.Table
    faults: tuple[Fault, ...]
    filtered: int


class Scorer:
    """Scores the units of one job. Not for several threads at a time.

    Args:
        engine: loaded.
        settings: of the job.
        local: the input lies on this machine.

    Attributes:
        ahead: whether reading and decoding run in threads of their own.
        chunk_rows, chunk_bytes: how a source is to cut a unit.
        heads: that are answered, in the order of the columns.
        seconds: by stage, since somebody cleared it; reading and decoding run beside the forward pass.
    """

    def __init__(self, engine: Engine, settings: ScoreSettings, *, local: bool = True) -> None:
        self.engine, self.settings = engine, settings
        self.ahead = not local or _has_idle_cores(settings, engine.runtime.device)
        self.heads = wanted_heads(engine.bundle, settings)
        self.chunk_rows, self.chunk_bytes = chunk_rows(engine, settings), CHUNK_BYTES
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inputs = Inputs(engine.bundle, self.heads, settings, settings.decode_threads or settings.threads)
        self._batching = Batching(engine, self.heads, settings)
        self._passes = Passes(engine, self.heads, options_of(settings))
        self._answers = pa.schema(head_fields(engine.bundle, self.heads, options_of(settings)))

    @classmethod
    def load(cls, bundle: Bundle, settings: ScoreSettings, *, local: bool = True) -> Self:
        """Load the bundle's graph and have it answer the golden samples.

        Raises:
            RuntimeUnavailable, DeviceUnavailable, GoldenMismatch: see `load_engine`.
            JobRefused: a head is not the model's.
        """
        wanted_heads(bundle, settings)
        loaded = load_engine(
            bundle, settings.runtime, settings.device, settings.precision, settings.threads, record=False
        )
        return cls(loaded.engine, settings, local=local)

    def schema(self, passed: pa.Schema) -> pa.Schema:
        """Of what is scored; see `output_schema`."""
        return pa.schema([*passed, *self._answers])

    def score(self, chunks: Iterable[Chunk], journal: Journal | None = None) -> Generator[Scored, None, None]:
        """The rows of one unit, in order, every row once.

        Where `ahead` says so, reading and decoding run in threads of their own. They never do where a worker died on
        this unit before: there, what was last told to the journal is what killed it.

        Args:
            chunks: of the unit, in order.
            journal: is told of every step before it is done.
        """
        journal = journal or Journal()
        threads = self.ahead and not journal.care and not journal.killers
        with ExitStack() as stack:
            read = self._read(iter(chunks), journal)
            if threads:
                read = stack.enter_context(ahead(read, _chunk_size, AHEAD_BYTES))
            parts = self._decoded(read, journal)
            if threads:
                parts = stack.enter_context(ahead(parts, _window_size, AHEAD_BYTES))
            number = 0
            for window in self._batching.windows(parts):
                scored, number = self._scored(window, number, journal)
                yield scored

    def _read(self, chunks: Iterator[Chunk], journal: Journal) -> Iterator[Chunk]:
        number = 0
        while True:
            journal.begin(Step("read", number))
            start = perf_counter()
            chunk = next(chunks, None)
            self.seconds["read"] += perf_counter() - start
            if chunk is None:
                return
            yield chunk
            number += 1

    def _decoded(self, chunks: Iterable[Chunk], journal: Journal) -> Iterator[Window]:
        for number, chunk in enumerate(chunks):
            start = perf_counter()
            window = self._decode(chunk, Step("decode", number), journal)
            self.seconds["decode"] += perf_counter() - start
            yield window

    def _decode(self, chunk: Chunk, step: Step, journal: Journal) -> Window:
        """The rows of a chunk as the model takes them."""
        faults = list(chunk.faults)
        rows, columns, passed = chunk.rows, dict(chunk.inputs), pa.Table.from_batches([chunk.passed])
        killers = [row for row, fault in journal.killers.items() if fault.stage in BEFORE_FORWARD]
        killed = np.isin(rows, killers)
        if killed.any():
            faults += [journal.killers[row] for row in rows[killed].tolist()]
            left = np.flatnonzero(~killed)
            rows, passed = rows[left], passed.take(left)
            columns = {name: taken(column, left) for name, column in columns.items()}
        care, alone = journal.care.get(step), []
        journal.begin(step)
        if care is not None:
            for place, row in enumerate(rows.tolist()):
                journal.begin(step, row)
                alone.append(self._inputs.decode({name: column[place : place + 1] for name, column in columns.items()}))
            journal.begin(step)
        decoded = joined(alone) if care == "alone" and alone else self._inputs.decode(columns)
        if decoded.errors:
            faults += [fault_of(int(rows[place]), "decode", error) for place, error in decoded.errors.items()]
            passed = passed.take(decoded.rows)
            rows = rows[decoded.rows]
        return Window(chunk.total, rows, decoded.inputs, passed, tuple(faults), chunk.filtered)

    def _scored(self, window: Window, number: int, journal: Journal) -> tuple[Scored, int]:
        """A window's answers, and the number of the next batch."""
        answered: list[Answered] = []
        places: list[Array] = []
        for batch in self._batching.batches(window):
            start = perf_counter()
            arrays = self._batching.stack(window, batch)
            texts = {name: [window.inputs[name][place] for place in batch.tolist()] for name in self._passes.labelled}
            collated = perf_counter()
            step = Step("forward", number)
            found = self._passes.run(Batch(step, window.rows[batch], arrays, texts), journal)
            self.seconds["collate"] += collated - start
            self.seconds["forward"] += perf_counter() - collated
            answered.append(found)
            places.append(batch[found.places])
            number += 1
        start = perf_counter()
        scored = self._put_together(window, answered, np.concatenate(places) if places else np.empty(0, np.int64))
        self.seconds["answer"] += perf_counter() - start
        return scored, number

    def _put_together(self, window: Window, answered: list[Answered], places: Array) -> Scored:
        """The answers in the order of the rows, beside their passed columns."""
        tables = [table for found in answered for table in found.tables]
        for table in tables:
            if not table.schema.equals(self._answers, check_metadata=True):
                raise ScoringError(
                    f"the answers of this batch are {table.schema}, declared were {self._answers}: this is a fault of "
                    "Polyhead's, please report it"
                )
        answers = pa.Table.from_batches(tables, self._answers)
        inverse = np.argsort(places, kind="stable")
        if not np.array_equal(inverse, np.arange(len(inverse))):
            answers = answers.combine_chunks().take(inverse)
            places = places[inverse]
        passed, rows = window.passed, window.rows
        if len(places) < len(rows):
            passed, rows = passed.take(places), rows[places]
        faults = [*window.faults, *(fault for found in answered for fault in found.faults)]
        columns = [*passed.columns, *answers.columns]
        table = pa.Table.from_arrays(columns, schema=self.schema(passed.schema))
        ordered = tuple(sorted(faults, key=lambda fault: fault.row))
        return Scored(window.total, rows, table, ordered, window.filtered)


def _has_idle_cores(settings: ScoreSettings, device: str) -> bool:
    """Whether there is something to gain by threads beside the forward pass, or somebody asked for them.

    Where every core has a pass to run, what one thread reads only has to travel to another core: a small MLP on
    Parquet is scored a fifth faster without (two workers, two cores).
    """
    if device != "cpu" or settings.decode_threads:
        return True
    cores = available_cores()
    return (settings.workers or cores // settings.threads) * settings.threads < cores


def _chunk_size(chunk: Chunk) -> int:
    """Bytes, about; Python's objects tell nobody how large they are, and a source bounds what one chunk holds."""
    columns = chunk.inputs.values()
    return int(chunk.passed.nbytes) + sum(c.nbytes if isinstance(c, pa.Array) else CHUNK_BYTES for c in columns)


def _window_size(window: Window) -> int:
    size = int(window.passed.nbytes)
    for values in window.inputs.values():
        if isinstance(values, np.ndarray):
            size += values.nbytes
        else:
            size += sum(v.nbytes if isinstance(v, np.ndarray) else v.ids.nbytes + len(v.text) for v in values)  # type: ignore
    return size
