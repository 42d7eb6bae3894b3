"""The rows that the gate runs: every batch size, the least and the greatest lengths, padding, and each row alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from polyhead.models.arrays import ArraySpec, array_specs, text_arrays
from polyhead.models.spec import ModelSpec
from polyhead.serving.golden import Array, trimmed

__all__ = ["BATCHES", "NEIGHBOURS", "Case", "Ragged", "joined", "ragged", "shapes"]

BATCHES = (1, 2, 3, 7, 64)
LENGTH_ROWS = 2  # of the cases of lengths
NEIGHBOURS = (
    "; an answer may not depend on the other rows of a batch: take no statistics of them in forward "
    "(a mean over the rows, a BatchNorm with track_running_stats=False)"
)
MAX_ELEMENTS = 1 << 22  # of one row: where free dimensions may be huge together, the gate runs smaller ones


@dataclass(frozen=True)
class Case:
    """Rows under the name that a figure or an error gives them.

    Attributes:
        fresh: those that are in no earlier case.
    """

    name: str
    rows: dict[str, Array]
    fresh: slice = field(default_factory=lambda: slice(None))


def shapes(spec: ModelSpec, samples: Sequence[Mapping[str, Array]]) -> Iterator[Case]:
    """Every batch size, every shape of the samples, and of each free dimension the least and the greatest length."""
    arrays = array_specs(spec)
    count = len(next(iter(samples[0].values())))
    for before, size in pairwise((0, *BATCHES)):
        rows = {name: np.ascontiguousarray(array[np.arange(size) % count]) for name, array in samples[0].items()}
        yield Case(f"batch {size}", trimmed(rows, arrays), slice(before, min(size, count)))
    for others in samples[1:]:
        part = {name: np.ascontiguousarray(array[: BATCHES[-1]]) for name, array in others.items()}
        yield Case(f"batch {len(next(iter(part.values())))}, {_words(_lengths(arrays, part))}", part)
    bounds = {name: bound for array in arrays.values() for name, bound in array.lengths.items()}
    if not bounds:
        return
    least = {name: low for name, (low, _) in bounds.items()}
    greatest = _greatest(arrays, bounds)
    # Dimensions that are taken for one another are all right as long as their lengths are equal.
    mixed = {name: (least, greatest)[index % 2][name] for index, name in enumerate(bounds)}
    for lengths in (least, greatest, *([mixed] if len(bounds) > 1 else [])):
        rows = {name: _of_lengths(arrays[name], a[:LENGTH_ROWS], lengths) for name, a in samples[0].items()}
        yield Case(_words(lengths), rows)


def _lengths(arrays: Mapping[str, ArraySpec], rows: Mapping[str, Array]) -> dict[str, int]:
    """The length of every free dimension in rows."""
    return {
        dimension: size
        for name, array in arrays.items()
        for dimension, size in zip(array.shape, rows[name].shape[1:], strict=True)
        if isinstance(dimension, str)
    }


def _words(lengths: Mapping[str, int]) -> str:
    """`1 tokens`, `height 512, width 512`."""
    texts = [f"{size} tokens" for name, size in lengths.items() if name.endswith("_tokens")]
    return ", ".join(texts + [f"{name} {size}" for name, size in lengths.items() if not name.endswith("_tokens")])


def _greatest(arrays: Mapping[str, ArraySpec], bounds: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The greatest lengths; where they make a row too large to run here, half of them, and so on."""
    found = {name: high for name, (_, high) in bounds.items()}
    while any(_elements(array, found) > MAX_ELEMENTS for array in arrays.values()):
        smaller = {name: max(bounds[name][0], size // 2) for name, size in found.items()}
        if smaller == found:
            break
        found = smaller
    return found


def _elements(array: ArraySpec, lengths: Mapping[str, int]) -> int:
    return prod(lengths[d] if isinstance(d, str) else d for d in array.shape)


def _of_lengths(array: ArraySpec, rows: Array, lengths: Mapping[str, int]) -> Array:
    """Rows of exactly these lengths, made of what is there: cut, or repeated. A mask says that all of it is valid."""
    rows = _taken(array, rows, lengths)
    return np.ones_like(rows) if array.role == "mask" else rows


def _taken(array: ArraySpec, rows: Array, lengths: Mapping[str, int]) -> Array:
    for axis, dimension in enumerate(array.shape, start=1):
        if dimension in lengths:
            rows = rows.take(np.arange(lengths[str(dimension)]) % rows.shape[axis], axis=axis)
    return np.ascontiguousarray(rows)


@dataclass(frozen=True)
class Ragged:
    """Rows of differing lengths, filled up to the longest.

    Attributes:
        lengths: by free dimension, each row's own length; only of those that are padded.
    """

    spec: ModelSpec
    rows: dict[str, Array]
    lengths: Mapping[str, Array]

    name = "rows of differing lengths"

    @property
    def padded(self) -> bool:
        """Whether padding holds something that a network can be told to ignore: token ids behind a mask."""
        return any(array.role == "mask" for array in array_specs(self.spec).values())

    @property
    def hint(self) -> str:
        """Why a row alone may differ."""
        if self.padded:
            return "; an answer may not depend on padding: the network must use attention_mask"
        return "; an answer may not depend on padding: give the network the lengths, or leave pad: out"

    def alone(self) -> Iterator[dict[str, Array]]:
        """Each row by itself, without its padding."""
        arrays = array_specs(self.spec)
        for row in range(len(next(iter(self.rows.values())))):
            single = {}
            for name, array in arrays.items():
                value = self.rows[name][row : row + 1]
                for axis, dimension in enumerate(array.shape, start=1):
                    if dimension in self.lengths:
                        value = value.take(np.arange(self.lengths[str(dimension)][row]), axis=axis)
                single[name] = np.ascontiguousarray(value)
            yield single

    def single(self) -> list[dict[str, Array]]:
        """Each row by itself, padding and all."""
        count = len(next(iter(self.rows.values())))
        return [{name: array[row : row + 1] for name, array in self.rows.items()} for row in range(count)]

    def scrambled(self) -> dict[str, Array]:
        """The same rows, with other token ids where the mask says padding."""
        changed = dict(self.rows)
        for name, array in array_specs(self.spec).items():
            if array.role == "ids":
                _, mask = text_arrays(self.spec, array.input)
                changed[name] = np.where(self.rows[mask] == 0, self.rows[name].max(), self.rows[name])
        return changed


def ragged(spec: ModelSpec, samples: Mapping[str, Array]) -> Ragged:
    """The largest batch, with padding: where no row has any, every second one is cut to half its length.

    Rows that are too short to be cut are made longer first, of what is there.
    """
    arrays = array_specs(spec)
    longer = _cuttable(arrays, samples)
    rows = {name: _taken(arrays[name], array[: BATCHES[-1]], longer) for name, array in samples.items()}
    count = len(next(iter(rows.values())))
    lengths: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.role == "mask":
            own = np.maximum(rows[name].sum(axis=1), 1)
            lengths[array.free[0]] = own if (own < rows[name].shape[1]).any() else _halves(rows[name].shape[1], count)
    for name, array in arrays.items():
        if array.role == "value" and array.pad is not None:
            for free, size in _lengths({name: array}, rows).items():
                least = array.lengths[free][0]
                lengths.setdefault(free, np.maximum(_halves(size, count), min(least, size)))
    for name, array in arrays.items():
        for axis, dimension in enumerate(array.shape, start=1):
            if dimension in lengths:
                place = np.arange(rows[name].shape[axis]).reshape(-1, *(1,) * (rows[name].ndim - 1 - axis))
                own = lengths[str(dimension)].reshape(-1, *(1,) * (rows[name].ndim - 1))
                rows[name] = np.where(place < own, rows[name], np.asarray(array.pad, dtype=rows[name].dtype))
    return Ragged(spec, {name: np.ascontiguousarray(array) for name, array in rows.items()}, lengths)


def _cuttable(arrays: Mapping[str, ArraySpec], samples: Mapping[str, Array]) -> dict[str, int]:
    """Of each padded dimension, a length that rows can be shorter than."""
    found = {}
    for name, array in arrays.items():
        if array.pad is not None:
            for free, size in _lengths({name: array}, samples).items():
                least, greatest = array.lengths[free]
                short = size == 1 or size <= least
                found[free] = min(greatest, max(2, 2 * least)) if short else size
    return found


def _halves(size: int, count: int) -> Array:
    """Every second row's length is half of the full one; at least one."""
    return np.where(np.arange(count) % 2 == 0, size, max(1, size // 2))


def joined(parts: Sequence[Mapping[str, Array]], together: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of single rows in the shapes of the rows run together, filled up with zeros."""
    whole = {name: np.zeros_like(array) for name, array in together.items()}
    for row, outputs in enumerate(parts):
        for name, output in outputs.items():
            place: tuple[Any, ...] = (row, *(slice(0, n) for n in output.shape[1:]))
            whole[name][place] = output[0]
    return whole
