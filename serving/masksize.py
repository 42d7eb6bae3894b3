"""How large a mask becomes: fixed, or following the lengths of a row's free dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from polyhead.models.arrays import array_specs
from polyhead.models.inputs import dimensions
from polyhead.models.spec import ModelSpec
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array

__all__ = ["MaskSize", "measured"]

ITEM = 4  # bytes of a float32
# How much longer a row is made to see how its mask grows: long enough that what is left of a stride counts for little.
STRETCH = 256


@dataclass(frozen=True)
class MaskSize:
    """How the size of a segmentation head's output follows the lengths of free dimensions.

    Attributes:
        shape: labels, height and width, at these lengths.
        lengths: by dimension.
        growth: by dimension, what one more of it adds to each axis of the shape.
    """

    shape: tuple[int, ...]
    lengths: Mapping[str, int]
    growth: Mapping[str, tuple[float, ...]]

    def bytes(self, lengths: Mapping[str, int]) -> int:
        """Of one row of these lengths."""
        sizes = [
            size + sum(self.growth[d][axis] * (length - self.lengths[d]) for d, length in lengths.items())
            for axis, size in enumerate(self.shape)
        ]
        return prod(max(1, ceil(size)) for size in sizes) * ITEM


def measured(engine: Engine, heads: Sequence[str]) -> dict[str, MaskSize]:
    """The masks of the first golden row, and of that row with each free dimension longer, or shorter, in turn."""
    golden = engine.bundle.golden()
    shapes = {head: golden.outputs[head].shape[1:] for head in heads}
    bounds = dimensions(engine.bundle.spec.inputs)
    first = {name: array[:1] for name, array in golden.inputs.items()}
    lengths: dict[str, int] = {}
    growth: dict[str, dict[str, tuple[float, ...]]] = {head: {} for head in heads}
    for dimension, (least, greatest) in bounds.items():
        length = lengths[dimension] = _length(engine.bundle.spec, first, dimension)
        other = min(greatest, length + STRETCH) if length < greatest else max(least, length - STRETCH)
        found = engine.run(_stretched(engine.bundle.spec, first, dimension, other), heads)
        for head in heads:
            sizes = zip(found[head].shape[1:], shapes[head], strict=True)
            growth[head][dimension] = tuple((now - before) / (other - length) for now, before in sizes)
    return {head: MaskSize(shapes[head], lengths, growth[head]) for head in heads}


def _length(spec: ModelSpec, row: Mapping[str, Array], dimension: str) -> int:
    return next(
        row[name].shape[1 + array.shape.index(dimension)]
        for name, array in array_specs(spec).items()
        if dimension in array.shape
    )


def _stretched(spec: ModelSpec, row: Mapping[str, Array], dimension: str, length: int) -> dict[str, Array]:
    """A row of another length: repeated, or cut."""
    stretched = dict(row)
    for name, array in array_specs(spec).items():
        for axis, found in enumerate(array.shape, start=1):
            if found == dimension:
                value = stretched[name]
                stretched[name] = value.take(np.arange(length) % value.shape[axis], axis=axis)
    return {name: np.ascontiguousarray(value) for name, value in stretched.items()}
