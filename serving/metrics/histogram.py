"""A histogram's cells: one a bucket, one for the sum."""

from __future__ import annotations

import numpy as np

from polyhead.serving.golden import Array
from polyhead.serving.metrics.families import Series

__all__ = ["Histogram"]


class Histogram:
    """Adds values to cells.

    Args:
        series: where they lie.
        values: all cells, `float64`.
    """

    def __init__(self, series: Series, values: Array) -> None:
        self._bounds = np.asarray(series.bounds)
        cells = values[series.place]
        self._buckets, self._sum = cells[:-1], cells[-1:]

    def add(self, values: Array) -> None:
        """Count values `[values]`, all finite; one that equals a bound lies below it."""
        self._buckets += np.bincount(self._bounds.searchsorted(values), minlength=len(self._buckets))
        self._sum += values.sum(dtype=np.float64)
