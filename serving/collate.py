"""Rows of many requests to the arrays of one forward pass, and each request's rows back out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving.golden import Array
from polyhead.serving.request import Query, Values

__all__ = ["Batch", "collate"]

# Lengths of token arrays are rounded up to a multiple of this: fewer distinct shapes for a runtime to plan for.
TOKEN_STEP = 8


@dataclass(frozen=True)
class Batch:
    """The inputs of one forward pass.

    Attributes:
        inputs: by the name of the graph's array, `[rows, …]`, contiguous.
        positions: for each row, its place among all rows of the queries, in their order.
    """

    inputs: Mapping[str, Array]
    positions: Array


def collate(spec: ModelSpec, queries: Sequence[Query], max_rows: int, max_tokens: int | None = None) -> list[Batch]:
    """As few batches as shapes and limits allow: one, where every row has the same shape.

    A free dimension with a pad value (and every text) is filled up to the longest row; without one, rows of equal shape
    go together, so that no row's answer depends on its neighbours. Where rows are padded and do not fit into one batch,
    rows of like length go together.

    Args:
        spec: the model's.
        queries: decoded, their texts encoded.
        max_rows: of a batch.
        max_tokens: of a batch, rows times the longest row's tokens; a longer row is a batch of its own. Any number
            where None.
    """
    total = sum(query.rows for query in queries)
    arrays = array_specs(spec)
    if not any(array.free for array in arrays.values()):
        columns = {name: _joined([query.inputs[name] for query in queries]) for name in spec.inputs}
        whole = Batch(columns, np.arange(total))
        return [whole] if total <= max_rows else _cut(whole, max_rows)
    rows = {
        name: [row for query in queries for row in _array_rows(query.inputs[array.input], array)]
        for name, array in arrays.items()
    }
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for index in range(total):
        key = tuple(rows[name][index].shape for name, array in arrays.items() if array.pad is None)
        groups.setdefault(key, []).append(index)
    batches = []
    for members in groups.values():
        padded = [name for name, array in arrays.items() if array.pad is not None]
        sizes = {index: max((rows[name][index].size for name in padded), default=0) for index in members}
        tokens = {index: _tokens(arrays, rows, index) for index in members}
        for part in _parts(members, sizes, tokens, max_rows, max_tokens):
            inputs = {name: _stacked(arrays[name], [column[i] for i in part]) for name, column in rows.items()}
            batches.append(Batch(inputs, np.asarray(part)))
    return batches


def _tokens(arrays: Mapping[str, ArraySpec], rows: Mapping[str, Sequence[Array]], index: int) -> int:
    """Of the longest of a row's texts; 0 where it has none."""
    return max((len(rows[name][index]) for name, array in arrays.items() if array.role == "ids"), default=0)


def _parts(
    members: list[int], sizes: Mapping[int, int], tokens: Mapping[int, int], max_rows: int, max_tokens: int | None
) -> Iterator[list[int]]:
    """Rows that make one batch each; in their order where all of them fit into one."""
    limit = float("inf") if max_tokens is None else max_tokens
    if len(members) <= max_rows and len(members) * max(tokens[index] for index in members) <= limit:
        yield members
        return
    part: list[int] = []
    for index in sorted(members, key=lambda index: (tokens[index], sizes[index])):  # each has the most tokens so far
        if part and (len(part) == max_rows or (len(part) + 1) * tokens[index] > limit):
            yield part
            part = []
        part.append(index)
    yield part


def _joined(parts: Sequence[Values]) -> Array:
    """One request's array as it is; several, one after the other."""
    arrays = [part if isinstance(part, np.ndarray) else np.stack(part) for part in parts]  # type: ignore[arg-type]
    return np.ascontiguousarray(arrays[0]) if len(arrays) == 1 else np.concatenate(arrays)


def _array_rows(values: Values, array: ArraySpec) -> Sequence[Array]:
    """Each row of one array, out of one request's values of its input."""
    if array.role == "value":
        return values  # type: ignore[return-value]
    encodings: Sequence[Encoding] = values  # type: ignore[assignment]
    return [encoding.ids if array.role == "ids" else np.ones_like(encoding.ids) for encoding in encodings]


def _stacked(array: ArraySpec, rows: Sequence[Array]) -> Array:
    if array.pad is None:
        return np.stack(rows)
    longest = tuple(max(row.shape[axis] for row in rows) for axis in range(rows[0].ndim))
    if array.longest is not None:
        longest = (min(array.longest, max(1, -(-longest[0] // TOKEN_STEP)) * TOKEN_STEP),)
    padded = np.full((len(rows), *longest), array.pad, dtype=rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        target[tuple(slice(0, n) for n in row.shape)] = row
    return padded


def _cut(batch: Batch, max_rows: int) -> list[Batch]:
    starts = range(0, len(batch.positions), max_rows)
    return [
        Batch({n: a[s : s + max_rows] for n, a in batch.inputs.items()}, batch.positions[s : s + max_rows])
        for s in starts
    ]
