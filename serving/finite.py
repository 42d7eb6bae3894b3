"""Which rows of raw outputs are finite: one sum tells of a whole array, and rows are looked at only where it is not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polyhead.serving.answers import Output
from polyhead.serving.golden import Array

__all__ = ["all_finite", "infinite", "not_finite"]


def all_finite(outputs: Mapping[str, Output]) -> bool:
    """Whether all numbers are finite, which one sum tells of all heads that are views of one array."""
    owners = {}
    for output in outputs.values():
        if isinstance(output, list):
            return False
        owner = output.base if isinstance(output.base, np.ndarray) else output
        owners[id(owner)] = owner
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs; halves
        return all(np.isfinite(owner.sum(dtype=np.float64)) for owner in owners.values())


def infinite(outputs: Mapping[str, Output]) -> dict[str, Array]:
    """Of the heads that have rows with NaN or infinity, which rows are finite."""
    found = {head: _finite_rows(output) for head, output in outputs.items()}
    return {head: rows for head, rows in found.items() if rows is not None}


def not_finite(head: str) -> str:
    """What is said of a row whose answer is not finite."""
    return f"head {head!r} answered NaN or infinity for this row: its values are beyond what the model can take"


def _finite_rows(output: Output) -> Array | None:
    """Which rows are finite; None where all are, which one sum can tell."""
    if isinstance(output, list):
        return np.array([_finite_rows(row[None]) is None for row in output])
    with np.errstate(invalid="ignore"):  # infinities of both signs
        if np.isfinite(output.sum(dtype=np.float64)):
            return None
    return np.asarray(np.isfinite(output).reshape(len(output), -1).all(axis=1))
