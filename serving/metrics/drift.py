"""What a head answers, counted: labels, confidence, values. Where these move, the data have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from polyhead.models.spec import ClassificationHead, HeadSpec, MultilabelHead, OneShotHead, RegressionHead, TokensHead
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.golden import Array
from polyhead.serving.metrics.families import Layout
from polyhead.serving.metrics.histogram import Histogram

__all__ = ["Drift", "Kept", "drift_of"]

Kept = tuple[Array, ...]  # arrays of a batch, `[rows, …]` each, which nobody writes to any more
Part = tuple[Kept, Array | None]  # of a batch, and which of its rows count; None: all


class Drift(Protocol):
    """Counts one head's answers."""

    def keep(self, found: HeadAnswers) -> Kept:
        """What is to be counted of a batch: no view of what the runtime or the next batch may write to."""
        ...

    def count(self, parts: Sequence[Part]) -> None:
        """Count many batches' answers."""
        ...


def drift_of(name: str, head: HeadSpec, layout: Layout, values: Array) -> Drift | None:
    """What counts a head's answers; None where they are vectors, or one label a pixel."""
    own = [series for series in layout.series if series.labels.get("head") == name]
    labels = [values[series.place] for series in own if series.family == "polyhead_head_labels"]
    kinds = ("polyhead_head_confidence", "polyhead_head_value")
    histograms = [Histogram(series, values) for series in own if series.family in kinds]
    match head:
        case ClassificationHead():
            return _Classes(labels[0], histograms[0])
        case MultilabelHead():
            return _Tags(labels[0])
        case RegressionHead():
            return _Values(histograms)
        case TokensHead():
            return _Words(labels[0])
        case OneShotHead():
            return _Nearest(labels[0], head.max_distance)
    return None


def _all(parts: Sequence[Part], place: int) -> Array:
    """One of the arrays of all batches, the rows that count."""
    arrays = [kept[place] if rows is None else kept[place][rows] for kept, rows in parts]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


class _Classes:
    """The best label of each row, and its probability."""

    def __init__(self, labels: Array, confidence: Histogram) -> None:
        self._labels, self._confidence = labels, confidence

    def keep(self, found: HeadAnswers) -> Kept:
        return found.best, found.best_scores

    def count(self, parts: Sequence[Part]) -> None:
        best, scores = _all(parts, 0), _all(parts, 1)
        finite = np.isfinite(scores)  # the others are refused: their label means nothing
        self._labels += np.bincount(best[finite], minlength=len(self._labels))
        self._confidence.add(scores[finite])


class _Tags:
    """The labels of each row that reached their threshold."""

    def __init__(self, labels: Array) -> None:
        self._labels = labels

    def keep(self, found: HeadAnswers) -> Kept:
        return (found.chosen,)

    def count(self, parts: Sequence[Part]) -> None:
        self._labels += _all(parts, 0).sum(axis=0)


class _Values:
    """The values of each row, a histogram each."""

    def __init__(self, components: Sequence[Histogram]) -> None:
        self._components = components

    def keep(self, found: HeadAnswers) -> Kept:
        return (found.numbers.copy(),)  # it is the runtime's own memory

    def count(self, parts: Sequence[Part]) -> None:
        values = _all(parts, 0)
        columns = values.reshape(len(values), -1).T
        for column, histogram in zip(columns, self._components, strict=False):  # the first ones have a histogram
            histogram.add(column[np.isfinite(column)])


class _Words:
    """The label of each word, which is that of its first token."""

    def __init__(self, labels: Array) -> None:
        self._labels = labels

    def keep(self, found: HeadAnswers) -> Kept:
        first = [text.words for text in found.texts]
        rows = np.repeat(np.arange(len(first)), [len(words) for words in first])
        words = np.full((len(first), max(map(len, first), default=0)), -1)
        words[rows, np.concatenate([np.arange(len(places)) for places in first])] = found.best[
            rows, np.concatenate(first)
        ]
        return (words,)

    def count(self, parts: Sequence[Part]) -> None:
        for (words,), rows in parts:
            counted = words if rows is None else words[rows]
            self._labels += np.bincount(counted[counted >= 0], minlength=len(self._labels))


class _Nearest:
    """The nearest enrolled class of each row; behind them the rows that are near to none."""

    def __init__(self, labels: Array, limit: float | None) -> None:
        self._labels, self._limit = labels, np.inf if limit is None else limit

    def keep(self, found: HeadAnswers) -> Kept:
        return (found.distances,)

    def count(self, parts: Sequence[Part]) -> None:
        distances, none = _all(parts, 0), len(self._labels) - 1
        if not none:  # no class is enrolled
            self._labels[0] += len(distances)
            return
        near = distances.min(axis=1) <= self._limit
        self._labels += np.bincount(np.where(near, distances.argmin(axis=1), none), minlength=none + 1)
