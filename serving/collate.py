"""Rows of many requests to the arrays of one forward pass, and each request's rows back out of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving.errors import InputNotFinite
from polyhead.serving.golden import Array
from polyhead.serving.request import Body, Query, Values

__all__ = ["Batch", "Collator", "RowsNotFinite", "cheapest_cuts", "collate", "rounded", "stacked"]

# Lengths of token arrays are rounded up to a multiple of this: fewer distinct shapes for a runtime to plan for.
TOKEN_STEP = 8


class RowsNotFinite(InputNotFinite):
    """Rows that came as bytes hold NaN or infinity.

    Args:
        rows: their numbers among all rows of the queries, and how many of their values are not finite.
        name: the input.
        size: values of a row.
    """

    def __init__(self, rows: Mapping[int, int], name: str, size: int) -> None:
        self.rows, self.name, self.size = dict(rows), name, size
        first = next(iter(self.rows))
        super().__init__(self.text(first), ("instances", first, name))

    def text(self, row: int) -> str:
        """What is wrong with one of the rows."""
        return f"input {self.name!r}: {self.rows[row]} of {self.size} values are NaN or infinite"


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
    """The batches of some queries, once; see `Collator`."""
    return Collator(spec, max_rows, max_tokens, max_bytes).batches(queries)


class Collator:
    """As few batches as shapes and limits allow: one, where every row has the same shape.

    A free dimension with a pad value (and every text) is filled up to the longest row; without one, rows of equal shape
    go together, so that no row's answer depends on its neighbours. Where rows are padded and do not fit into one batch,
    rows of like length go together; texts also where that saves more padding than another forward pass costs.

    Args:
        spec: the model's.
        max_rows: of a batch.
        max_tokens: of a batch, rows times the longest row's tokens; a longer row is a batch of its own. Any number
            where None.
        max_bytes: of a batch's tensors with free dimensions, padding counted; a larger row is a batch of its own. Any
            number where None.
        pass_tokens: what a forward pass costs by itself, in tokens whose computation takes as long; None where texts
            are never run apart to save padding.
    """

    def __init__(
        self,
        spec: ModelSpec,
        max_rows: int,
        max_tokens: int | None = None,
        max_bytes: int | None = None,
        pass_tokens: float | None = None,
    ) -> None:
        self.spec = spec
        self.pass_tokens = pass_tokens
        self._arrays = array_specs(spec)
        self._fixed = not any(array.free for array in self._arrays.values())
        self._grouped = [name for name, array in self._arrays.items() if array.free and array.pad is None]
        self._ids = [name for name, array in self._arrays.items() if array.role == "ids"]
        self._max_rows, self._max_tokens, self._max_bytes = max_rows, max_tokens, max_bytes
        self._buffers: dict[str, Array] = {}

    def batches(self, queries: Sequence[Query]) -> list[Batch]:
        """The rows of some queries as batches.

        Args:
            queries: decoded, their texts encoded. In each row, dimensions of one name have one length.

        Raises:
            RowsNotFinite: rows that came as bytes hold NaN or infinity.
        """
        total = sum([query.rows for query in queries])
        if self._fixed:
            columns = {name: self._joined(name, [q.inputs[name] for q in queries], total) for name in self.spec.inputs}
            whole = Batch(columns, np.arange(total))
            return [whole] if total <= self._max_rows else _cut(whole, self._max_rows)
        arrays = self._arrays
        rows = {
            name: [row for query in queries for row in _array_rows(query.inputs[array.input], array)]
            for name, array in arrays.items()
        }
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index in range(total):
            key = tuple(rows[name][index].shape for name in self._grouped)
            groups.setdefault(key, []).append(index)
        room = _Room(arrays, rows, self._max_rows, self._max_tokens, self._max_bytes)
        batches = []
        for members in groups.values():
            for alike in self._alike(members, rows):
                for part in room.parts(alike):
                    inputs = {name: stacked(arrays[name], [column[i] for i in part]) for name, column in rows.items()}
                    batches.append(Batch(inputs, np.asarray(part)))
        return batches

    def _alike(self, members: list[int], rows: Mapping[str, Sequence[Array]]) -> list[list[int]]:
        """Texts that are cheapest to run together: all of them, or those of like length, the shortest first."""
        if self.pass_tokens is None or not self._ids or len(members) == 1:
            return [members]
        columns = [rows[name] for name in self._ids]
        lengths = [max([rounded(len(column[index])) for column in columns]) for index in members]
        cuts = cheapest_cuts(lengths, self.pass_tokens)
        if len(cuts) == 1:
            return [members]
        return [
            [index for index, length in zip(members, lengths, strict=True) if below < length <= cut]
            for below, cut in pairwise((0, *cuts))
        ]

    def _joined(self, name: str, parts: Sequence[Values], total: int) -> Array:
        """One array of a fixed shape: one request's as it is; several, one after the other."""
        spec = self._arrays[name]
        raw = [part for part in parts if isinstance(part, bytes | bytearray | memoryview)]
        if len(raw) == len(parts):
            return _from_octets(name, spec, raw)
        arrays = _arrays(name, spec, parts)
        if len(arrays) == 1:
            return np.ascontiguousarray(arrays[0])
        if total > self._max_rows:
            return np.concatenate(arrays)
        # One batch, whose outputs are bytes on the wire before the next one comes: it may use the memory again, which
        # for large inputs takes the kernel longer to hand out than to fill.
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < total:
            shape = (1 << (total - 1).bit_length(), *arrays[0].shape[1:])
            buffer = self._buffers[name] = np.empty(shape, arrays[0].dtype)
        return np.concatenate(arrays, out=buffer[:total])


def cheapest_cuts(lengths: Sequence[int], pass_tokens: float) -> list[int]:
    """Where to part texts by length, so that padding and forward passes together cost the least.

    Args:
        lengths: of each text, in tokens as they are padded.
        pass_tokens: what a forward pass costs by itself, in tokens.

    Returns:
        The length of the longest text of each part, ascending; the last is the longest of all.
    """
    longest = max(lengths)
    if len(lengths) * longest - sum(lengths) <= pass_tokens:  # all the padding there is costs less than a second pass
        return [longest]
    sizes = sorted(set(lengths))
    upto = {size: sum(length <= size for length in lengths) for size in sizes}
    # best[size]: the least cost of all texts up to this length, and the cut before the last part of them.
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}
    upto[0] = 0
    for end, size in enumerate(sizes):
        best[size] = min(
            (best[below][0] + pass_tokens + size * (upto[size] - upto[below]), below) for below in (0, *sizes[:end])
        )
    cuts = [longest]
    while (below := best[cuts[-1]][1]) > 0:
        cuts.append(below)
    return cuts[::-1]


def rounded(length: int) -> int:
    """Tokens as they are padded."""
    return max(1, -(-length // TOKEN_STEP)) * TOKEN_STEP


def _row_bytes(spec: ArraySpec) -> int:
    return prod(size for size in spec.shape if isinstance(size, int)) * np.dtype(spec.dtype).itemsize


def _arrays(name: str, spec: ArraySpec, parts: Sequence[Values]) -> list[Array]:
    """The parts as arrays, where only some of them came as bytes.

    Raises:
        RowsNotFinite: some of those are not finite.
    """
    arrays: list[Array] = []
    wrong: dict[int, int] = {}
    start = size = 0
    for part in parts:
        if isinstance(part, bytes | bytearray | memoryview):
            try:
                arrays.append(_from_octets(name, spec, [part]))
            except RowsNotFinite as error:
                wrong |= {start + row: count for row, count in error.rows.items()}
                size = error.size
            start += len(part) // _row_bytes(spec)
        else:
            arrays.append(part if isinstance(part, np.ndarray) else np.stack(part))  # type: ignore[arg-type]
            start += len(part)
    if wrong:
        raise RowsNotFinite(wrong, name, size)
    return arrays


def _from_octets(name: str, spec: ArraySpec, parts: Sequence[Body]) -> Array:
    """Rows of a fixed shape as they were sent, one after the other; of one request without a copy, where they lie so.

    Raises:
        RowsNotFinite: some are not finite.
    """
    data = parts[0] if len(parts) == 1 else bytearray().join(parts)
    array = np.frombuffer(data, np.dtype(spec.dtype).newbyteorder("<"))
    if not array.flags.aligned or not array.dtype.isnative:
        array = array.astype(spec.dtype)
    rows: Array = array.reshape(-1, *spec.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = (~np.isfinite(rows)).reshape(len(rows), -1).sum(axis=1)
        raise RowsNotFinite({int(row): int(wrong[row]) for row in np.flatnonzero(wrong)}, name, rows[0].size)
    return rows


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


def _array_rows(values: Values, array: ArraySpec) -> Sequence[Array]:
    """Each row of one array, out of one request's values of its input."""
    if array.role == "value":
        return values  # type: ignore[return-value]
    encodings: Sequence[Encoding] = values  # type: ignore[assignment]
    return [encoding.ids if array.role == "ids" else np.ones_like(encoding.ids) for encoding in encodings]


def stacked(array: ArraySpec, rows: Sequence[Array]) -> Array:
    """Rows of one array as a batch, `[rows, …]`; free dimensions that have a pad are filled up to the longest."""
    if not array.free or array.pad is None:
        return np.stack(rows)
    longest = _longest([row.shape for row in rows])
    if array.longest is not None:
        longest = (min(array.longest, rounded(longest[0])),)
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
