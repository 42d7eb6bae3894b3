"""What a head's targets look like, by kind: dtype, shape, what stands where one is missing. Numpy only.

| kind | target of one row | missing |
|---|---|---|
| classification, embedding, oneshot | `int64`, a class's index | -1 |
| multilabel | `float32 [labels]`, 0 or 1 | NaN, label by label |
| regression | `float32 [dim]` | NaN, value by value |
| segmentation | `int64 [height, width]`, a label's index per pixel | -1, pixel by pixel |
| tokens | a tuple of spans (start, end, type) in characters of the text; an object array holds them | None |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyhead.models.spec import (
    ClassificationHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    SpecError,
    TokensHead,
)

__all__ = ["MISSING", "check", "labelled", "missing"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

MISSING = -1  # where targets are indices; NaN where they are numbers


def missing(head: HeadSpec, rows: int, like: Array) -> Array:
    """Targets of rows that have none, of the dtype and shape of other targets of the head."""
    if like.dtype == object:
        return np.full(rows, None, dtype=object)
    return np.full((rows, *like.shape[1:]), np.nan if _is_number(head) else MISSING, dtype=like.dtype)


def labelled(head: HeadSpec, targets: Array) -> Array:
    """Which rows have a target, in whole or in part: `bool [rows]`."""
    if targets.dtype == object:
        return np.array([target is not None for target in targets], dtype=bool)
    known = ~np.isnan(targets) if _is_number(head) else targets != MISSING
    return np.array(known.reshape(len(targets), -1).any(axis=1))


def check(name: str, head: HeadSpec, targets: Array) -> None:
    """Refuse targets that are not of the head's kind.

    Raises:
        SpecError: the dtype or shape is another, or a value lies outside of the labels.
    """
    wanted, dtype, shape = _form(head)
    if targets.dtype != dtype or targets.shape[1:] != (shape if shape is not None else targets.shape[1:]):
        raise SpecError(f"targets of {name!r} are {targets.dtype} {list(targets.shape)}: give {wanted}")
    if isinstance(head, SegmentationHead) and targets.ndim != 3:
        raise SpecError(f"targets of {name!r} are {targets.dtype} {list(targets.shape)}: give {wanted}")
    classes = _classes(head)
    if classes is not None and len(targets) and not MISSING <= targets.min() <= targets.max() < classes:
        raise SpecError(
            f"targets of {name!r} reach from {targets.min()} to {targets.max()}: "
            f"give 0 to {classes - 1}, one for each of the {classes} labels, or -1 where one is missing"
        )
    if isinstance(head, MultilabelHead) and not np.isin(targets[~np.isnan(targets)], (0, 1)).all():
        raise SpecError(
            f"targets of {name!r} hold other numbers than 0 and 1: give 1 where a label holds, NaN if unknown"
        )
    if isinstance(head, RegressionHead) and np.isinf(targets).any():
        raise SpecError(f"targets of {name!r} hold an infinite value: give NaN where one is missing")


def _form(head: HeadSpec) -> tuple[str, Any, Sequence[int] | None]:
    """In words, the dtype, and the shape of one row where it is fixed."""
    match head:
        case TokensHead():
            return "an object array [rows] of spans ((start, end, type), …), None where a row has no labels", object, ()
        case SegmentationHead():
            return "int64 [rows, height, width]", np.int64, None
        case MultilabelHead():
            return f"float32 [rows, {len(head.labels)}]", np.float32, (len(head.labels),)
        case RegressionHead():
            return f"float32 [rows, {head.dim}]", np.float32, (head.dim,)
        case _:
            return "int64 [rows]", np.int64, ()


def _classes(head: HeadSpec) -> int | None:
    """How many classes a head's indices may name; None where they are free, or no indices."""
    if isinstance(head, ClassificationHead | SegmentationHead):
        return len(head.labels)
    if isinstance(head, OneShotHead) and head.labels:
        return len(head.labels)
    return None


def _is_number(head: HeadSpec) -> bool:
    return isinstance(head, MultilabelHead | RegressionHead)
