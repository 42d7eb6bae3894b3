"""Rows with a target per task: what a training run reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyhead.models import targets as forms
from polyhead.models.spec import ModelSpec, SpecError

__all__ = ["Batch", "Batches", "Rows", "Split", "join"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
Batch = tuple[dict[str, Tensor], dict[str, Tensor]]  # inputs, targets


@dataclass(frozen=True)
class Rows:
    """Raw inputs by input name and targets by head name, all with the same number of rows.

    Inputs are what the wire carries: an image is `uint8`, a text a `str` in an object array. The form of targets, and
    what stands for a missing one, is in `polyhead.models.targets`.

    Attributes:
        lengths: of columns whose rows are padded to the longest: each row's own length `int64 [rows]`.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    lengths: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in (*self._columns(), *self.lengths.items())}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns differ in their number of rows: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def _columns(self) -> Iterator[tuple[str, Array]]:
        yield from self.inputs.items()
        yield from self.targets.items()

    def take(self, index: Array) -> Rows:
        """The rows at these positions, in this order."""
        return Rows(
            {name: array[index] for name, array in self.inputs.items()},
            {name: array[index] for name, array in self.targets.items()},
            {name: array[index] for name, array in self.lengths.items()},
        )

    def longest(self) -> Array | None:
        """Each row's length in the column where it is longest, `int64 [rows]`; None where nothing is padded."""
        lengths = [*self.lengths.values()]
        return np.max(lengths, axis=0) if lengths else None

    def of(self, heads: Sequence[str]) -> Rows:
        """The same rows with the targets of these heads alone."""
        return Rows(self.inputs, {name: self.targets[name] for name in heads if name in self.targets}, self.lengths)


@dataclass(frozen=True)
class Split:
    """Rows to learn from, rows to stop by, and rows held out until the end."""

    train: Rows
    validation: Rows
    test: Rows

    def parts(self) -> dict[str, Rows]:
        """The three by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def join(parts: Sequence[Rows], spec: ModelSpec) -> Rows:
    """The rows of several tasks, one below the other; a head's target is missing where a part has none for it.

    Raises:
        SpecError: there is no part, parts differ in their inputs, or in a column's dtype or the shape of its rows.
    """
    if not parts:
        raise SpecError("join: there are no rows, got an empty sequence: give one Rows for each task")
    heads = [name for name in spec.heads if any(name in part.targets for part in parts)]
    for part in parts:
        if set(part.inputs) != set(spec.inputs):
            raise SpecError(f"join: a part has inputs {sorted(part.inputs)}, the spec's are {sorted(spec.inputs)}")
    inputs = {name: _stacked(name, [part.inputs[name] for part in parts]) for name in spec.inputs}
    targets = {}
    for name in heads:
        like = next(part.targets[name] for part in parts if name in part.targets)
        columns = [
            part.targets[name] if name in part.targets else forms.missing(spec.heads[name], len(part), like)
            for part in parts
        ]
        targets[name] = _stacked(name, columns)
    return Rows(inputs, targets)


def _stacked(name: str, columns: Sequence[Array]) -> Array:
    kinds = {(str(column.dtype), column.shape[1:]) for column in columns}
    if len(kinds) > 1:
        found = " and ".join(f"{dtype} [rows{''.join(f', {d}' for d in shape)}]" for dtype, shape in sorted(kinds))
        raise SpecError(f"join: {name!r} is {found}: give all parts one dtype and shape")
    return np.concatenate(columns)


class Batches:
    """Rows batch by batch, again and again: an iterable of (inputs, targets), each a dict of tensors.

    Columns with lengths are cut to the longest row of their batch. One row left over joins the batch before it, since
    batch normalisation cannot learn from one.

    Args:
        rows: without object arrays; texts are encoded first, see `polyhead.models.texts`.
        batch_size: rows a batch.
        order: the rows' positions by epoch, counted from 0; as they come where None.

    Attributes:
        epoch: whose order the next iteration takes; set it before each.
    """

    def __init__(self, rows: Rows, batch_size: int, order: Callable[[int], Array] | None = None) -> None:
        objects = [name for name, column in rows._columns() if column.dtype == object]
        if objects:
            raise SpecError(f"column {objects[0]!r} holds Python objects: encode texts before batches are made of them")
        self.rows = rows
        self.batch_size = batch_size
        self.order = order
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._starts(len(self.rows)))

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(len(self.rows)) if self.order is None else self.order(self.epoch)
        for start, end in pairwise([*self._starts(len(order)), len(order)]):
            yield self._batch(order[start:end])

    def _starts(self, rows: int) -> list[int]:
        starts = list(range(0, rows, self.batch_size))
        return starts[:-1] if len(starts) > 1 and rows - starts[-1] == 1 else starts

    def _batch(self, index: Array) -> Batch:
        def cut(name: str, column: Array) -> Tensor:
            if name not in self.rows.lengths:
                return torch.from_numpy(column[index])
            longest = max(1, int(self.rows.lengths[name][index].max()))
            return torch.from_numpy(column[index, :longest])

        return (
            {name: cut(name, column) for name, column in self.rows.inputs.items()},
            {name: cut(name, column) for name, column in self.rows.targets.items()},
        )
