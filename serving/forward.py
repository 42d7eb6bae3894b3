"""Queries to raw outputs: collated, one forward pass where shapes allow, and every row back in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from polyhead.models.spec import SegmentationHead
from polyhead.serving.answers import Output
from polyhead.serving.collate import Batch, Collator
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.wanted import Wanted

__all__ = ["Forward"]


class Forward:
    """Runs one engine on queries.

    Args:
        engine: loaded.
        collator: makes the batches.
    """

    def __init__(self, engine: Engine, collator: Collator) -> None:
        self.engine, self.collator = engine, collator
        self._masks = {n for n, head in engine.bundle.spec.heads.items() if isinstance(head, SegmentationHead)}

    def run(self, wanted: Wanted, seconds: dict[str, float]) -> Mapping[str, Output]:
        """Every wanted head's raw output, in the order of the rows: of all rows, or of those in `wanted.rows`.

        Args:
            wanted: the queries, and what they want.
            seconds: by stage; what this took is added to `collate` and `forward`.

        Raises:
            RowsNotFinite: rows that came as bytes hold NaN or infinity.
        """
        start = perf_counter()
        batches = self.collator.batches(wanted.queries)
        collated = perf_counter()
        if len(batches) == 1:  # its rows are in order
            found: Mapping[str, Output] = self.engine.run(batches[0].inputs, wanted.heads, wanted.rows)
        else:
            found = self._together(batches, wanted)
        seconds["collate"] += collated - start
        seconds["forward"] += perf_counter() - collated
        return found

    def _together(self, batches: Sequence[Batch], wanted: Wanted) -> dict[str, Output]:
        """The outputs of several passes as those of one."""
        ranks = {head: _ranks(rows, wanted.total) for head, rows in wanted.rows.items()}
        parts: dict[str, list[Array]] = {}
        places: dict[str, list[Array]] = {}
        for batch in batches:
            rows = {head: np.flatnonzero(rank[batch.positions] >= 0) for head, rank in ranks.items()}
            for head, output in self.engine.run(batch.inputs, wanted.heads, rows).items():
                own = rows.get(head)
                parts.setdefault(head, []).append(output)
                place = batch.positions if own is None else ranks[head][batch.positions[own]]
                places.setdefault(head, []).append(place)
        found: dict[str, Output] = {}
        for head, outputs in parts.items():
            sizes = {output.shape[1:] for output in outputs}
            several = head in self._masks and len(sizes) > 1
            found[head] = _in_order(outputs, places[head]) if several else _restored(outputs, places[head])
        return found


def _ranks(rows: Array, total: int) -> Array:
    """By row, its place among the given rows; -1 where it is none of them."""
    ranks = np.full(total, -1)
    ranks[rows] = np.arange(len(rows))
    return ranks


def _restored(parts: Sequence[Array], positions: Sequence[Array]) -> Array:
    """The outputs of several batches in the order of the rows; those of shorter texts filled up with zeros."""
    shape = tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))
    whole = np.zeros((sum(len(part) for part in parts), *shape), dtype=parts[0].dtype)
    for part, rows in zip(parts, positions, strict=True):
        place: tuple[Any, ...] = (rows, *(slice(0, n) for n in part.shape[1:]))
        whole[place] = part
    return whole


def _in_order(parts: Sequence[Array], positions: Sequence[Array]) -> list[Array]:
    """The outputs of several batches row by row in the order of the rows, each of the size it has."""
    rows = {
        int(place): row
        for part, places in zip(parts, positions, strict=True)
        for place, row in zip(places, part, strict=True)
    }
    return [rows[place] for place in range(len(rows))]
