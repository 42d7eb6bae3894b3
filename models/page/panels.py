"""The plots of a run, in the order of its page: over all tasks, then head by head."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from polyhead.models.page import curves, verdicts
from polyhead.models.page.canvas import pixels
from polyhead.models.page.evidence import Evidence, Outcome
from polyhead.models.page.outcomes import (
    confusion,
    intersection_over_union,
    multilabel_scores,
    principal,
    span_scores,
)
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    TokensHead,
)

__all__ = ["Panel", "panels"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

POINTS = 2000  # in a scatter
EXAMPLES = 4  # images beside their masks


@dataclass(frozen=True)
class Panel:
    """A plot: the head it is of (None: of all), what it shows in words, and its pixels `uint8 [height, width, 3]`."""

    head: str | None
    words: str
    image: Array


def panels(evidence: Evidence) -> Iterator[Panel]:
    """Every plot that the run has something for. Call it within `canvas.styled()`."""
    for words, drawn in _over_tasks(evidence):
        yield Panel(None, words, pixels(drawn))
    for head, spec in evidence.spec.heads.items():
        for words, drawn in _of_head(evidence, head, spec):
            yield Panel(head, words, pixels(drawn))


def _over_tasks(evidence: Evidence) -> Iterator[tuple[str, Figure]]:
    losses = _known(training=evidence.series("loss", "train"), validation=evidence.series("loss", "validation"))
    if losses:
        words = "loss of all tasks, each times its fixed weight"
        yield words, curves.learning(words.capitalize(), evidence.epochs, losses, {}, best=evidence.record.best_epoch)
    places = (
        (("weights",), "weight of each task's loss", "weight"),
        (("learning_rates",), "learning rate of each part", "learning rate"),
        (("gradients", "norms"), "gradient of each task at the shared parameters", "2-norm of the gradient"),
    )
    for path, words, ylabel in places:
        # In the order of the heads, so that a task has one colour in all of them.
        names = sorted(evidence.names(*path), key=[*evidence.spec.heads, *evidence.names(*path)].index)
        series = {name: evidence.series(*path, name) for name in names}
        if series:
            yield words, curves.lines(words.capitalize(), ylabel, evidence.epochs, series)
    tasks, matrix = conflicts(evidence)
    if len(tasks) > 1:
        words = "cosine between tasks' gradients, mean over epochs"
        yield words, curves.cosines(words.capitalize(), tasks, matrix)


def conflicts(evidence: Evidence) -> tuple[list[str], Array]:
    """The tasks whose gradients were compared, and the mean cosine of each pair over the epochs.

    The matrix is `float64 [tasks, tasks]`, NaN on its diagonal and for pairs that never met.
    """
    pairs = evidence.names("gradients", "cosines")
    tasks = sorted({task for pair in pairs for task in pair.split("|")})
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for pair in pairs:
        values = np.array(evidence.series("gradients", "cosines", pair))
        known = values[np.isfinite(values)]
        if len(known):
            row, column = (tasks.index(task) for task in pair.split("|"))
            matrix[row, column] = matrix[column, row] = known.mean()
    return tasks, matrix


def _of_head(evidence: Evidence, head: str, spec: HeadSpec) -> Iterator[tuple[str, Figure]]:
    curve = _learning(evidence, head, spec)
    if curve is not None:
        yield f"{head}: losses and metrics by epoch", curve
    outcome = evidence.outcomes.get(head)
    if outcome is None:
        return
    match spec:
        case ClassificationHead():
            yield from _confusion(head, spec, outcome)
        case MultilabelHead():
            yield from _multilabel(head, spec, outcome)
        case RegressionHead():
            yield from _regression(head, spec, outcome)
        case TokensHead():
            yield from _tokens(head, spec, outcome)
        case EmbeddingHead() | OneShotHead():
            yield from _vectors(head, spec, outcome)
        case SegmentationHead():
            yield from _segmentation(head, spec, outcome, evidence.images)


def _learning(evidence: Evidence, head: str, spec: HeadSpec) -> Figure | None:
    losses = _known(training=evidence.series("train", head), validation=evidence.series("validation", head, "loss"))
    names = [name for name in evidence.names("validation", head) if name != "loss"]
    unit = ""
    if isinstance(spec, RegressionHead):
        names, unit = [name for name in names if name == "mae"], spec.unit
    metrics = {name: evidence.series("validation", head, name) for name in names}
    if not losses and not metrics:
        return None
    return curves.learning(f"{head}: learning", evidence.epochs, losses, metrics, unit, evidence.record.best_epoch)


def _known(**series: list[float]) -> dict[str, list[float]]:
    """The series that have a value in some epoch."""
    return {name: values for name, values in series.items() if not all(map(math.isnan, values))}


def _confusion(head: str, spec: ClassificationHead, outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    counts = confusion(outcome.outputs, outcome.targets, len(spec.labels))
    rows, right = int(counts.sum()), int(counts.trace())
    if rows:
        words = f"{head}: {right} of {rows} test rows right"
        yield f"{words}; confusion of labels", verdicts.confusion_matrix(words, counts, spec.labels)


def _multilabel(head: str, spec: MultilabelHead, outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    found = multilabel_scores(outcome.outputs, outcome.targets, spec.labels, spec.threshold)
    words = f"{head}: labels on {len(outcome.targets)} test rows"
    scores = {"precision": found.precision, "recall": found.recall, "F1": found.f1}
    yield words, verdicts.bars(words, "share", scores, found.labels, found.support)


def _tokens(head: str, spec: TokensHead, outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    found = span_scores(outcome.outputs, outcome.targets, spec.labels)
    words = f"{head}: spans of {len(outcome.targets)} test texts"
    yield words, verdicts.bars(words, "F1 of whole spans", {"F1": found.f1}, found.labels, found.support)


def _regression(head: str, spec: RegressionHead, outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    targets = outcome.targets.reshape(len(outcome.targets), -1)
    outputs = outcome.outputs.reshape(targets.shape)
    known = np.isfinite(targets) & np.isfinite(outputs)
    if not known.any():
        return
    error = float(np.abs(outputs[known].astype(np.float64) - targets[known]).mean())
    some = known.any(axis=1)
    outputs, targets = (np.where(known, values, np.nan)[some] for values in (outputs, targets))
    chosen = _some(len(targets))
    words = f"{head}: mean absolute error {error:.3g} {spec.unit}".rstrip()
    shown = f"{words}, {_of(len(chosen), len(targets))}"
    yield shown, verdicts.regression(shown, outputs[chosen], targets[chosen], spec.unit)


def _vectors(head: str, spec: EmbeddingHead | OneShotHead, outcome: Outcome) -> Iterator[tuple[str, Figure]]:
    known = (outcome.targets >= 0) & np.isfinite(outcome.outputs).all(axis=1)
    vectors, classes = outcome.outputs[known], outcome.targets[known]
    if len(vectors) < 2:
        return
    chosen = _some(len(vectors))
    points, shares = principal(vectors[chosen])
    given = spec.labels if isinstance(spec, OneShotHead) else ()
    names = [given[index] if index < len(given) else f"class {index}" for index in range(int(classes.max()) + 1)]
    words = f"{head}: vectors by class, {_of(len(chosen), len(vectors))}"
    yield words, verdicts.vectors(words, points, shares, classes[chosen], names)


def _segmentation(
    head: str, spec: SegmentationHead, outcome: Outcome, images: Array | None
) -> Iterator[tuple[str, Figure]]:
    shares = intersection_over_union(outcome.outputs, outcome.targets, len(spec.labels))
    if np.isnan(shares).all():
        return
    words = f"{head}: mean intersection over union {np.nanmean(shares):.3f}"
    yield words, verdicts.bars(words, "intersection over union", {"IoU": shares}, spec.labels, None)
    if images is not None and len(images):
        shown = slice(0, min(EXAMPLES, len(images), len(outcome.targets)))
        words = f"{head}: test images, true and predicted masks"
        predicted = outcome.outputs[shown].argmax(axis=1)
        yield words, verdicts.masks(words, images[shown], outcome.targets[shown], predicted, spec.labels)


def _some(rows: int) -> Array:
    """At most `POINTS` rows, evenly spaced."""
    return np.unique(np.linspace(0, rows - 1, min(rows, POINTS)).astype(np.int64))


def _of(shown: int, rows: int) -> str:
    return f"{rows} test rows" if shown == rows else f"{shown} of {rows} test rows"
