"""Rows of many requests to the arrays of one forward pass, and each request's rows back out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

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


def collate(
    spec: ModelSpec,
    queries: Sequence[Query],
    max_rows: int,
    max_tokens: int | None = None,
    max_bytes: int | None = None,
) -> list[Batch]:
    """As few batches as shapes and limits allow: one, where every row has the same shape.

    A free dimension with a pad value (and every text) is filled up to the longest row; without one, rows of equal shape
    go together, so that no row's answer depends on its neighbours. Where rows are padded and do not fit into one batch,
    rows of like length go together.

    Args:
        spec: the model's.
        queries: decoded, their texts encoded. In each row, dimensions of one name have one length.
        max_rows: of a batch.
        max_tokens: of a batch, rows times the longest row's tokens; a longer row is a batch of its own. Any number
            where None.
        max_bytes: of a batch's tensors with free dimensions, padding counted; a larger row is a batch of its own. Any
            number where None.
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
        key = tuple(rows[name][index].shape for name, array in arrays.items() if array.free and array.pad is None)
        groups.setdefault(key, []).append(index)
    room = _Room(arrays, rows, max_rows, max_tokens, max_bytes)
    batches = []
    for members in groups.values():
        for part in room.parts(members):
            inputs = {name: _stacked(arrays[name], [column[i] for i in part]) for name, column in rows.items()}
            batches.append(Batch(inputs, np.asarray(part)))
    return batches


class _Room:
    """What fits into one batch, of rows that may stand in one.

    Args:
        arrays: of the model.
        rows: of every array, each row.
        max_rows, max_tokens, max_bytes: see `collate`.
    """

    def __init__(
        self,
        arrays: Mapping[str, ArraySpec],
        rows: Mapping[str, Sequence[Array]],
        max_rows: int,
        max_tokens: int | None,
        max_bytes: int | None,
    ) -> None:
        self._texts = [rows[name] for name, array in arrays.items() if array.role == "ids"]
        self._free = [rows[name] for name, array in arrays.items() if array.role == "value" and array.free]
        self._max_rows = max_rows
        self._max_tokens = float("inf") if max_tokens is None else max_tokens
        self._max_bytes = float("inf") if max_bytes is None else max_bytes

    def parts(self, members: list[int]) -> Iterator[list[int]]:
        """Rows that make one batch each; in their order where all of them fit into one."""
        tokens = {index: max((len(rows[index]) for rows in self._texts), default=0) for index in members}
        shapes = {index: [rows[index].shape for rows in self._free] for index in members}
        longest = [_longest(column) for column in zip(*shapes.values(), strict=True)]
        if self._fits(len(members), max(tokens.values()), longest):
            yield members
            return
        sizes = {index: sum(rows[index].size for rows in self._free) for index in members}
        part: list[int] = []
        for index in sorted(members, key=lambda index: (tokens[index], sizes[index])):  # the most tokens so far
            longest = [_longest(pair) for pair in zip(longest, shapes[index], strict=True)] if part else shapes[index]
            if part and not self._fits(len(part) + 1, tokens[index], longest):
                yield part
                part, longest = [], shapes[index]
            part.append(index)
        yield part

    def _fits(self, count: int, tokens: int, longest: Sequence[tuple[int, ...]]) -> bool:
        """Whether so many rows, the longest of so many tokens, the tensors of these shapes, make one batch."""
        size = count * sum(prod(shape) * rows[0].itemsize for shape, rows in zip(longest, self._free, strict=True))
        return count <= self._max_rows and count * tokens <= self._max_tokens and size <= self._max_bytes


def _longest(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that holds all of these."""
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


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
    if not array.free or array.pad is None:
        return np.stack(rows)
    longest = _longest([row.shape for row in rows])
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
