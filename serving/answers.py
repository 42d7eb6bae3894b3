"""Raw outputs to answers: labels, scores, values, vectors. The arithmetic runs once over the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from polyhead.models.spec import ClassificationHead, EmbeddingHead, HeadSpec, MultilabelHead, RegressionHead
from polyhead.serving.golden import Array
from polyhead.serving.request import Options

__all__ = ["SERVED_KINDS", "HeadAnswers"]

# The kinds of head this version answers; the export refuses the others.
SERVED_KINDS = ("classification", "multilabel", "regression", "embedding")

Answer = dict[str, Any]


class HeadAnswers:
    """One head's answers to every row of a batch.

    Args:
        spec: the head.
        output: raw, `[rows, …]` `float32`.
    """

    def __init__(self, spec: HeadSpec, output: Array) -> None:
        self._output = output
        self._rows: Callable[[slice, Options], list[Answer]]
        match spec:
            case ClassificationHead():
                self._labels = spec.labels
                self._scores = softmax(output)
                self._best = self._scores.argmax(axis=1)
                self._best_scores = self._scores[np.arange(len(output)), self._best]
                self._rows = self._classification
            case MultilabelHead():
                self._labels = spec.labels
                self._scores = sigmoid(output)
                self._chosen = self._scores >= np.asarray(spec.threshold, dtype=np.float32)
                self._rows = self._multilabel
            case RegressionHead():
                self._unit = spec.unit
                self._single = spec.dim == 1
                self._rows = self._regression
            case EmbeddingHead():
                self._rows = self._embedding
            case other:
                raise NotImplementedError(f"heads of kind {other.kind}")  # the export lets no such bundle through

    def rows(self, part: slice, options: Options) -> list[Answer]:
        """The answers to some of the rows, one a row."""
        answers = self._rows(part, options)
        if options.raw:
            for answer, raw in zip(answers, self._output[part], strict=True):
                answer["raw"] = np.ascontiguousarray(raw)
        return answers

    def _classification(self, part: slice, options: Options) -> list[Answer]:
        labels = self._labels
        answers: list[Answer] = [
            {"label": labels[index], "score": score, "index": index}
            for index, score in zip(self._best[part].tolist(), self._best_scores[part], strict=True)
        ]
        if options.scores:
            for answer, scores in zip(answers, self._scores[part], strict=True):
                answer["scores"] = dict(zip(labels, scores, strict=True))
        if options.top_k:
            # A stable sort of the negated scores: equal scores keep the order of the labels.
            order = np.argsort(-self._scores[part], axis=1, kind="stable")[:, : options.top_k]
            for answer, scores, top in zip(answers, self._scores[part], order.tolist(), strict=True):
                answer["top"] = [{"label": labels[i], "score": scores[i], "index": i} for i in top]
        return answers

    def _multilabel(self, part: slice, options: Options) -> list[Answer]:
        labels = self._labels
        answers: list[Answer] = []
        for chosen, scores in zip(self._chosen[part], self._scores[part], strict=True):
            index = np.flatnonzero(chosen)
            answer: Answer = {"labels": [labels[i] for i in index.tolist()], "scores": scores[index]}
            if options.scores:
                answer["all_scores"] = dict(zip(labels, scores, strict=True))
            answers.append(answer)
        return answers

    def _regression(self, part: slice, _options: Options) -> list[Answer]:
        values = self._output[part].reshape(-1) if self._single else np.ascontiguousarray(self._output[part])
        return [{"value": value, "unit": self._unit} for value in values]

    def _embedding(self, part: slice, _options: Options) -> list[Answer]:
        return [{"vector": vector} for vector in np.ascontiguousarray(self._output[part])]


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
