"""Raw outputs to answers: labels, scores, values, vectors. The arithmetic runs once over the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
from polyhead.models.tokenizer import Encoding
from polyhead.serving import masks
from polyhead.serving.entities import entities, words
from polyhead.serving.golden import Array
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import PLAIN, Options

__all__ = ["HeadAnswers", "Output"]

Answer = dict[str, Any]
# A head's raw numbers for every row: one array, or an array a row where masks are of several sizes.
Output = Array | list[Array]


class HeadAnswers:
    """One head's answers to every row of a batch.

    Args:
        spec: the head.
        output: raw, `[rows, …]` `float32`; of a segmentation head also a list of `[labels, height, width]`.
        texts: of a tokens head, each row's text.
        prototypes: of a oneshot head, the enrolled classes.

    Attributes:
        labels: of a head that has any; of a oneshot head the enrolled classes.
        scores: probabilities `[rows, labels]`, of classification, multilabel and oneshot heads.
        best: the likeliest label, `[rows]` of a classification head, `[rows, tokens]` of a tokens head; `best_scores`
            is its probability.
        chosen: of a multilabel head, the labels that reach their threshold, `bool [rows, labels]`.
        numbers: the output as one array, of every kind but segmentation.
        masks: of a segmentation head, each row's label indices `[height, width]`.
        distances: of a oneshot head, to each enrolled class, `float32 [rows, classes]`.
    """

    def __init__(
        self,
        spec: HeadSpec,
        output: Output,
        texts: Sequence[Encoding] = (),
        prototypes: Prototypes | None = None,
    ) -> None:
        self.spec = spec
        self.output = output
        self.texts = texts
        self._plain: list[Answer] | None = None
        self._rows: Callable[[slice, Options], list[Answer]]
        if isinstance(spec, SegmentationHead):
            self.labels = spec.labels
            self.masks = [logits.argmax(axis=0) for logits in output]
            self._rows = self._segmentation
            return
        output = self.numbers = np.asarray(output)
        match spec:
            case ClassificationHead():
                self.labels = spec.labels
                self.scores = softmax(output)
                self.best = self.scores.argmax(axis=1)
                self.best_scores = self.scores[np.arange(len(output)), self.best]
                self._rows = self._classification
            case MultilabelHead():
                self.labels = spec.labels
                self.scores = sigmoid(output)
                self.chosen = self.scores >= np.asarray(spec.threshold, dtype=np.float32)
                self._rows = self._multilabel
            case RegressionHead():
                self.unit = spec.unit
                self._single = spec.dim == 1
                self._rows = self._regression
            case EmbeddingHead():
                self._rows = self._embedding
            case TokensHead():
                self.labels = spec.labels
                self.best, self.best_scores = _best(output, axis=2)
                self._rows = self._tokens
            case OneShotHead():
                enrolled = prototypes or Prototypes.empty(spec.dim)
                self.labels = enrolled.labels
                self._limit = np.inf if spec.max_distance is None else spec.max_distance
                distances = enrolled.distances(output)
                scores = softmax(-spec.scale * distances**2) if enrolled.labels else distances
                self.distances, self.scores = distances.astype(np.float32), scores.astype(np.float32)
                self._rows = self._oneshot

    def rows(self, part: slice, options: Options) -> list[Answer]:
        """The answers to some of the rows, one a row. Nobody changes them."""
        if options is PLAIN:  # most requests, so the whole batch is made at once
            if self._plain is None:
                self._plain = self._rows(slice(None), options)
            return self._plain[part]
        answers = self._rows(part, options)
        if options.raw:
            for answer, raw in zip(answers, self.output[part], strict=True):
                answer["raw"] = np.ascontiguousarray(raw)
            for answer, text in zip(answers, self.texts[part], strict=False):
                answer["raw"] = answer["raw"][: len(text.ids)]
        return answers

    def _classification(self, part: slice, options: Options) -> list[Answer]:
        labels = self.labels
        answers: list[Answer] = [
            {"label": labels[index], "score": score, "index": index}
            for index, score in zip(self.best[part].tolist(), self.best_scores[part], strict=True)
        ]
        if options.scores:
            for answer, scores in zip(answers, self.scores[part], strict=True):
                answer["scores"] = dict(zip(labels, scores, strict=True))
        if options.top_k:
            for answer, top in zip(answers, _top(self.scores[part], -self.scores[part], options.top_k), strict=True):
                answer["top"] = [{"label": labels[i], "score": score, "index": i} for i, score in top]
        return answers

    def _multilabel(self, part: slice, options: Options) -> list[Answer]:
        labels = self.labels
        answers: list[Answer] = []
        for chosen, scores in zip(self.chosen[part], self.scores[part], strict=True):
            index = np.flatnonzero(chosen)
            answer: Answer = {"labels": [labels[i] for i in index.tolist()], "scores": scores[index]}
            if options.scores:
                answer["all_scores"] = dict(zip(labels, scores, strict=True))
            answers.append(answer)
        return answers

    def _regression(self, part: slice, _options: Options) -> list[Answer]:
        values = self.numbers[part].reshape(-1) if self._single else np.ascontiguousarray(self.numbers[part])
        return [{"value": value, "unit": self.unit} for value in values]

    def _embedding(self, part: slice, _options: Options) -> list[Answer]:
        return [{"vector": vector} for vector in np.ascontiguousarray(self.numbers[part])]

    def _tokens(self, part: slice, options: Options) -> list[Answer]:
        answers: list[Answer] = []
        for text, best, scores in zip(self.texts[part], self.best[part], self.best_scores[part], strict=True):
            answer: Answer = {"entities": entities(text, best, scores, self.labels)}
            if options.scores:
                answer["words"] = words(text, best, scores, self.labels)
            answers.append(answer)
        return answers

    def _segmentation(self, part: slice, options: Options) -> list[Answer]:
        answers: list[Answer] = []
        for mask in self.masks[part]:
            pixels = np.bincount(mask.reshape(-1), minlength=len(self.labels))
            found = np.flatnonzero(pixels)
            answer: Answer = {
                "labels": [self.labels[i] for i in found.tolist()],
                "areas": (pixels[found] / mask.size).astype(np.float32),
                "size": list(mask.shape),
            }
            if options.mask == "png":
                answer["png"] = masks.png(mask)
            else:
                answer["runs"] = masks.runs(mask)
            answers.append(answer)
        return answers

    def _oneshot(self, part: slice, options: Options) -> list[Answer]:
        labels = self.labels
        answers: list[Answer] = []
        for distances, scores in zip(self.distances[part], self.scores[part], strict=True):
            answer: Answer = {"label": None, "score": None, "distance": None}  # where no class is enrolled
            if labels:
                nearest = int(distances.argmin())
                near = distances[nearest] <= self._limit
                answer = {
                    "label": labels[nearest] if near else None,
                    "score": scores[nearest],
                    "distance": distances[nearest],
                }
            if options.scores:
                answer["scores"] = dict(zip(labels, scores, strict=True))
            answers.append(answer)
        if options.top_k:
            # By distance: far classes share a score of 0.
            tops = _top(self.scores[part], self.distances[part], options.top_k)
            for answer, distances, top in zip(answers, self.distances[part], tops, strict=True):
                answer["top"] = [{"label": labels[i], "score": score, "distance": distances[i]} for i, score in top]
        return answers


def _top(scores: Array, ranks: Array, count: int) -> list[list[tuple[int, Any]]]:
    """The labels of least rank of each row, with their scores; equal ranks keep the order of the labels."""
    order = np.argsort(ranks, axis=1, kind="stable")[:, :count]
    return [[(i, row[i]) for i in top] for row, top in zip(scores, order.tolist(), strict=True)]


def _best(logits: Array, axis: int) -> tuple[Array, Array]:
    """The index of the largest logit along an axis, and its probability."""
    best = logits.argmax(axis=axis)
    largest = logits.max(axis=axis, keepdims=True)
    scores: Array = 1 / np.exp(logits - largest).sum(axis=axis)
    return best, scores


def softmax(logits: Array) -> Array:
    """Probabilities `[rows, labels]`, safe for logits of any size."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: Array) -> Array:
    """Probabilities, safe for logits of any size, exact also where they are tiny."""
    small = np.exp(-np.abs(logits))
    result: Array = np.where(logits >= 0, np.float32(1), small) / (1 + small)
    return result
