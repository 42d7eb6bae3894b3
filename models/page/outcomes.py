"""What a head got right and wrong on held-out rows: the numbers behind the plots of a run's page. Numpy only.

Outputs are a head's raw outputs, targets as training has them; missing targets are left out everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyhead.models.bio import OUTSIDE, spans

__all__ = ["LabelScores", "confusion", "intersection_over_union", "multilabel_scores", "principal", "span_scores"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class LabelScores:
    """Precision, recall and F1 per label, each float `[labels]`.

    A share of nothing is NaN: the precision of a label that was never predicted, the recall of one that never was true.

    Attributes:
        labels: their names.
        support: how often each was true, int `[labels]`.
    """

    labels: tuple[str, ...]
    precision: Array
    recall: Array
    f1: Array
    support: Array

    @classmethod
    def of(cls, labels: Sequence[str], right: Array, predicted: Array, true: Array) -> LabelScores:
        """From counts per label: predicted and true, predicted, true."""
        return cls(
            tuple(labels), _share(right, predicted), _share(right, true), _share(2 * right, predicted + true), true
        )


def confusion(outputs: Array, targets: Array, labels: int) -> Array:
    """How often each label was taken for which.

    Args:
        outputs: logits `[rows, labels]`.
        targets: class indices `[rows]`, -1 where missing.
        labels: their number.

    Returns:
        `int64 [labels, labels]`: row is the true label, column the predicted one.
    """
    known = targets >= 0
    return _pairs(targets[known], outputs[known].argmax(axis=1), labels)


def multilabel_scores(
    outputs: Array, targets: Array, labels: Sequence[str], threshold: float | Sequence[float] = 0.5
) -> LabelScores:
    """Scores of labels that hold or not, each on its own.

    Args:
        outputs: logits `[rows, labels]`.
        targets: 1 or 0, NaN where missing, `[rows, labels]`.
        labels: their names.
        threshold: of the sigmoid, one for all or one per label.
    """
    # tanh does not overflow where exp does.
    holds = 0.5 * (1 + np.tanh(0.5 * outputs.astype(np.float64))) >= np.asarray(threshold)
    true, known = targets == 1, ~np.isnan(targets)
    return LabelScores.of(labels, (holds & true).sum(axis=0), (holds & known).sum(axis=0), (true & known).sum(axis=0))


def span_scores(outputs: Array, targets: Array, labels: Sequence[str]) -> LabelScores:
    """Scores of whole spans by their type: right are those with the true start, end and type, as CoNLL counts.

    Args:
        outputs: logits `[rows, tokens, labels]`.
        targets: label indices `[rows, tokens]`, -1 at tokens that are not a word's first, and at padding.
        labels: of tokens: `O`, `B-<type>`, `I-<type>`, or plain types.
    """
    predictions = outputs.argmax(axis=2)
    right, predicted, true = Counter[str](), Counter[str](), Counter[str]()
    for guess, target in zip(predictions, targets, strict=True):
        known = target >= 0
        found, wanted = (set(spans(words[known].tolist(), labels)) for words in (guess, target))
        right.update(kind for _, _, kind in found & wanted)
        predicted.update(kind for _, _, kind in found)
        true.update(kind for _, _, kind in wanted)
    kinds = list(dict.fromkeys(_kind(label) for label in labels if label != OUTSIDE))
    return LabelScores.of(kinds, *(np.array([count[kind] for kind in kinds]) for count in (right, predicted, true)))


def intersection_over_union(outputs: Array, targets: Array, labels: int) -> Array:
    """Per label, the pixels that both have over those that either has: float `[labels]`, NaN where none has.

    Args:
        outputs: logits `[rows, labels, height, width]`.
        targets: label indices `[rows, height, width]`, -1 where missing.
        labels: their number.
    """
    known = targets >= 0
    counts = _pairs(targets[known], outputs.argmax(axis=1)[known], labels)
    both = counts.diagonal()
    return _share(both, counts.sum(axis=0) + counts.sum(axis=1) - both)


def principal(vectors: Array) -> tuple[Array, Array]:
    """The two directions in which vectors vary most (principal component analysis).

    Args:
        vectors: float `[rows, dim]`, finite.

    Returns:
        Coordinates `float64 [rows, 2]`, and the share of the variance along each, `float64 [2]`. The second is zero
        where there is no second direction.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, ::-1][:, :2]
    # An eigenvector's sign is arbitrary; its largest entry is positive here.
    chosen = chosen * np.sign(np.take_along_axis(chosen, np.abs(chosen).argmax(axis=0)[None], axis=0))
    points, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    points[:, : chosen.shape[1]] = centred @ chosen
    shares[: chosen.shape[1]] = values[::-1][:2].clip(min=0)
    total = values.clip(min=0).sum()
    return points, shares / total if total > 0 else shares


def _kind(label: str) -> str:
    """The type that `polyhead.models.bio.spans` gives to spans of a label."""
    return spans([0], [label])[0][2]


def _pairs(true: Array, predicted: Array, labels: int) -> Array:
    flat = np.bincount(true.astype(np.int64) * labels + predicted, minlength=labels * labels)
    return flat.reshape(labels, labels)


def _share(part: Array, whole: Array) -> Array:
    shares: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return shares
