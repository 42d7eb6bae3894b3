"""Rows with a target per task: what a training run reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["Rows", "Split", "loader"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Rows:
    """Raw inputs by input name and targets by head name, all with the same number of rows.

    A missing target is -1 (class indices) or NaN (numbers). Inputs are what the wire carries: an image is `uint8`.
    """

    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self._columns()}
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
        )


@dataclass(frozen=True)
class Split:
    """Rows to learn from, rows to stop by, and rows held out until the end."""

    train: Rows
    validation: Rows
    test: Rows


def loader(rows: Rows, batch_size: int, seed: int | None = None) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of the rows' columns in order (inputs, then targets); shuffled where a seed is given."""
    tensors = [torch.from_numpy(array) for _, array in rows._columns()]
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(
        TensorDataset(*tensors),
        batch_size=batch_size,
        shuffle=seed is not None,
        generator=generator,
        num_workers=0,
    )
