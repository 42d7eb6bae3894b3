"""Counts every batch of one worker, for a few microseconds a batch: nothing is done in Python once per request.

Requests, rows and failures are counted at once. The rest is kept, small and by itself, and counted many batches at a
time: by a thread of its own, for the most part while the worker waits for its next batch. A worker that is killed
takes the last quarter of a second of those counts with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from polyhead.models.spec import HeadSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.metrics import cells
from polyhead.serving.metrics.drift import Drift, Kept, drift_of
from polyhead.serving.metrics.families import OTHER, Layout, layout_of
from polyhead.serving.metrics.histogram import Histogram
from polyhead.serving.record import STAGES, Record

__all__ = ["Observer", "observer"]

INTERVAL = 0.25  # seconds between two counts of what was kept
MOST = 128  # batches that are kept: more are counted on the spot
HEADS, ROWS = attrgetter("heads"), attrgetter("rows")


def observer(bundle: Bundle, engine: Engine, folder: Path | None) -> Callable[[Record], None] | None:
    """What a worker's responder is to tell of its batches; None where nobody asked for counts.

    Args:
        folder: where the launcher reads them.

    Raises:
        OSError: the folder cannot be written.
    """
    if folder is None:
        return None
    layout = layout_of(bundle)
    about = cells.About(
        model=bundle.spec.name,
        version=bundle.spec.version,
        pid=os.getpid(),
        started=cells.own_start(),
        bundle={
            "bundle": bundle.digest[:12],
            "graph": engine.graph.id,
            "precision": engine.graph.precision,
            "runtime": engine.runtime.name,
            "device": engine.runtime.device,
        },
        series=tuple(layout.series),
    )
    made = Observer(layout, cells.create(folder, about, layout), bundle.spec.heads)
    threading.Thread(target=made.run, name="metrics", daemon=True).start()
    return made


@dataclass(slots=True)
class _Asked:
    """The heads and the rows of each query that was answered together with others."""

    heads: Sequence[tuple[str, ...]]
    sizes: Sequence[int]


# A head, what was answered, and to whom where not all wanted the same heads.
_Answered = tuple[str, Kept, _Asked | None]


@dataclass(slots=True)
class _Kept:
    """What is still to be counted of one batch.

    Attributes:
        requests, queries, rows: of the batch; a refused request has no query.
        seconds: by stage.
        heads: that its queries wanted; where all wanted the same, once.
        sizes: rows of each query; empty where all wanted the same heads.
        answers: what tells of drift, of every row that a head was run on.
    """

    requests: int
    queries: int
    rows: int
    seconds: Mapping[str, float]
    heads: Sequence[tuple[str, ...]]
    sizes: Sequence[int]
    answers: Sequence[_Answered]


class Observer:
    """Adds batches to cells.

    Args:
        layout: which cell is what.
        values: the cells, `float64 [layout.size]`.
        heads: of the model.
    """

    def __init__(self, layout: Layout, values: Array, heads: Mapping[str, HeadSpec]) -> None:
        self._cells = values.data.cast("B").cast("d")  # a number at a time, it is thrice as fast as the array
        self._requests, self._rows = (layout.find(f"polyhead_{name}").start for name in ("requests", "rows"))
        failures = layout.find("polyhead_request_failures")
        self._failures = {kind: failures.start + place for place, kind in enumerate(failures.names)}
        self._batch_requests, self._batch_rows = (
            Histogram(layout.find(f"polyhead_batch_{name}"), values) for name in ("requests", "rows")
        )
        self._stages = {
            stage: Histogram(layout.find("polyhead_stage_seconds", stage=stage), values) for stage in STAGES
        }
        self._head_requests, self._head_rows = (
            {name: layout.find(f"polyhead_head_{what}", head=name).start for name in heads}
            for what in ("requests", "rows")
        )
        drifts = {name: drift_of(name, head, layout, values) for name, head in heads.items()}
        self._drifts: dict[str, Drift] = {name: drift for name, drift in drifts.items() if drift is not None}
        self._kept: deque[_Kept] = deque()
        self._lock = threading.Lock()

    def __call__(self, record: Record) -> None:
        """Count one batch, or keep what is to be counted."""
        count, queries = self._cells, record.queries
        count[self._requests] += record.requests
        for kind, number in record.failures.items():
            count[self._failures.get(kind, self._failures[OTHER])] += number
        heads = list(map(HEADS, queries))
        whole = [wanted.total for wanted, _ in record.answered if len(wanted.queries) == len(heads)]  # of most batches
        rows = whole[0] if whole else sum(map(ROWS, queries))
        count[self._rows] += rows
        requests, sizes = len(heads), list[int]()
        if heads and heads.count(heads[0]) < requests:
            sizes = list(map(ROWS, queries))
        else:
            heads = heads[:1]
        drifts, answers = self._drifts, list[_Answered]()
        for wanted, found in record.answered:
            asked = _Asked(list(map(HEADS, wanted.queries)), list(map(ROWS, wanted.queries))) if sizes else None
            answers += [(head, drifts[head].keep(of_head), asked) for head, of_head in found.items() if head in drifts]
        self._kept.append(_Kept(record.requests, requests, rows, record.seconds, heads, sizes, answers))
        if len(self._kept) >= MOST:
            self.flush()

    def run(self) -> None:
        """Count what was kept, at intervals, for as long as the process lives."""
        while True:
            time.sleep(INTERVAL)
            if self._kept:
                self.flush()

    def flush(self) -> None:
        """Count all that was kept until now."""
        with self._lock:
            batches = [self._kept.popleft() for _ in range(len(self._kept))]
            if not batches:
                return
            self._batch_requests.add(np.array([batch.requests for batch in batches], dtype=np.float64))
            self._batch_rows.add(np.array([batch.rows for batch in batches], dtype=np.float64))
            for stage, histogram in self._stages.items():
                seconds = np.array([batch.seconds.get(stage, 0.0) for batch in batches])
                histogram.add(seconds[seconds > 0])
            self._count_heads(batches)
            answers: dict[str, list[tuple[Kept, Array | None]]] = {}
            for batch in batches:
                for head, kept, asked in batch.answers:
                    wanted = None if asked is None else _wanting(head, asked, len(kept[0]))
                    answers.setdefault(head, []).append((kept, wanted))
            for head, parts in answers.items():
                self._drifts[head].count(parts)

    def _count_heads(self, batches: Sequence[_Kept]) -> None:
        """Requests and rows of every head."""
        requests, rows = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
        for batch in batches:
            if not batch.sizes and batch.heads:
                requests[batch.heads[0]] += batch.queries
                rows[batch.heads[0]] += batch.rows
            for heads, size in zip(batch.heads, batch.sizes, strict=False):
                requests[heads] += 1
                rows[heads] += size
        for heads, number in requests.items():
            for head in heads:
                self._cells[self._head_requests[head]] += number
                self._cells[self._head_rows[head]] += rows[heads]


def _wanting(head: str, asked: _Asked, rows: int) -> Array | None:
    """Which rows wanted a head, `bool [rows]`; None where it was run for those alone."""
    wanted = np.repeat([head in heads for heads in asked.heads], asked.sizes)
    return wanted if len(wanted) == rows else None
