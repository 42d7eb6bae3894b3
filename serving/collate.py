"""Rows of many requests to the arrays of one forward pass, and each request's rows back out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polyhead.models.spec import ModelSpec, TensorInput
from polyhead.serving.golden import Array
from polyhead.serving.request import Query

__all__ = ["Batch", "collate"]


@dataclass(frozen=True)
class Batch:
    """The inputs of one forward pass.

    Attributes:
        inputs: by name, `[rows, …]`, contiguous.
        positions: for each row, its place among all rows of the queries, in their order.
    """

    inputs: Mapping[str, Array]
    positions: Array


def collate(spec: ModelSpec, queries: Sequence[Query], max_rows: int) -> list[Batch]:
    """As few batches as shapes and `max_rows` allow: one, where every row has the same shape.

    A free dimension with a pad value is filled up to the longest row; without one, rows of equal shape go together,
    so that no row's answer depends on its neighbours.
    """
    total = sum(query.rows for query in queries)
    if not any(isinstance(s, TensorInput) and s.free for s in spec.inputs.values()):
        columns = {name: _joined([query.inputs[name] for query in queries]) for name in spec.inputs}
        whole = Batch(columns, np.arange(total))
        return [whole] if total <= max_rows else _cut(whole, max_rows)
    rows = {name: [row for query in queries for row in query.inputs[name]] for name in spec.inputs}
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for index in range(total):
        groups.setdefault(tuple(_key(spec, name, rows[name][index]) for name in spec.inputs), []).append(index)
    batches = []
    for members in groups.values():
        inputs = {name: _stacked(spec, name, [column[i] for i in members]) for name, column in rows.items()}
        batches += _cut(Batch(inputs, np.asarray(members)), max_rows)
    return batches


def _joined(parts: Sequence[Array | Sequence[Array]]) -> Array:
    """One request's array as it is; several, one after the other."""
    arrays = [part if isinstance(part, np.ndarray) else np.stack(part) for part in parts]
    return np.ascontiguousarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)


def _key(spec: ModelSpec, name: str, row: Array) -> tuple[int, ...]:
    """What must agree for two rows to share a batch: the shape, or nothing where a pad value fills it up."""
    declared = spec.inputs[name]
    return () if isinstance(declared, TensorInput) and declared.pad is not None else row.shape


def _stacked(spec: ModelSpec, name: str, rows: Sequence[Array]) -> Array:
    declared = spec.inputs[name]
    if not isinstance(declared, TensorInput) or declared.pad is None:
        return np.stack(rows)
    longest = tuple(max(row.shape[axis] for row in rows) for axis in range(rows[0].ndim))
    padded = np.full((len(rows), *longest), declared.pad, dtype=rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        target[tuple(slice(0, n) for n in row.shape)] = row
    return padded


def _cut(batch: Batch, max_rows: int) -> list[Batch]:
    starts = range(0, len(batch.positions), max_rows)
    return [
        Batch({n: a[s : s + max_rows] for n, a in batch.inputs.items()}, batch.positions[s : s + max_rows])
        for s in starts
    ]
