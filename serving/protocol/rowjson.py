"""Answers to many rows as JSON, each head's rows at once: numbers are written by one call for the whole batch.

The bytes are those that `json.document` would write; it is asked for the kinds of heads that have no way of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from polyhead.models.spec import ClassificationHead, EmbeddingHead, HeadSpec, MultilabelHead, RegressionHead
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.golden import Array
from polyhead.serving.request import PLAIN

__all__ = ["PlainRows", "RowWriter"]


class RowWriter:
    """Writes one head's answers, of requests without options.

    Args:
        name: the head's.
        spec: the head.
    """

    def __init__(self, name: str, spec: HeadSpec) -> None:
        self._key = orjson.dumps(name) + b":"
        self._rows: Callable[[HeadAnswers], list[bytes]] = self._any
        match spec:
            case ClassificationHead():
                heads = [self._key + b'{"label":' + orjson.dumps(label) + b',"score":' for label in spec.labels]
                tails = [b',"index":%d}' % index for index in range(len(spec.labels))]
                self._parts = list(zip(heads, tails, strict=True))
                self._rows = self._classification
            case MultilabelHead():
                self._labels = [orjson.dumps(label) for label in spec.labels]
                self._rows = self._multilabel
            case RegressionHead():
                self._head = self._key + b'{"value":'
                self._tail = b',"unit":' + orjson.dumps(spec.unit) + b"}"
                self._rows = self._numbers
            case EmbeddingHead():
                self._head, self._tail = self._key + b'{"vector":', b"}"
                self._rows = self._numbers

    def rows(self, answers: HeadAnswers) -> list[bytes]:
        """`"<head>":<answer>` for every row."""
        return self._rows(answers)

    def _classification(self, answers: HeadAnswers) -> list[bytes]:
        parts = self._parts
        return [
            parts[index][0] + score + parts[index][1]
            for index, score in zip(answers.best.tolist(), _numbers(answers.best_scores), strict=True)
        ]

    def _multilabel(self, answers: HeadAnswers) -> list[bytes]:
        labels, key = self._labels, self._key
        rows, columns = np.nonzero(answers.chosen)
        chosen = [labels[column] for column in columns.tolist()]
        scores = _numbers(answers.scores[rows, columns])
        found, start = [], 0
        for stop in np.cumsum(answers.chosen.sum(axis=1)).tolist():
            part = slice(start, stop)
            found.append(
                key + b'{"labels":[' + b",".join(chosen[part]) + b'],"scores":[' + b",".join(scores[part]) + b"]}"
            )
            start = stop
        return found

    def _numbers(self, answers: HeadAnswers) -> list[bytes]:
        head, tail = self._head, self._tail
        numbers = answers.numbers
        if isinstance(answers.spec, RegressionHead) and answers.spec.dim == 1:
            return [head + number + tail for number in _numbers(numbers.reshape(-1))]
        return [head + vector + tail for vector in _vectors(numbers)]

    def _any(self, answers: HeadAnswers) -> list[bytes]:
        key = self._key
        rows: list[Any] = answers.rows(slice(None), PLAIN)
        return [key + orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]


class PlainRows:
    """The answers to one batch's requests without options: each head's rows are written once, whoever wants them.

    Args:
        answers: by head.
        writers: by head.
        places: of a head that was run on some of the batch's rows, which ones; None where on all of them.
        total: rows of the batch.
    """

    def __init__(
        self,
        answers: Mapping[str, HeadAnswers],
        writers: Mapping[str, RowWriter],
        places: Mapping[str, Array | None],
        total: int,
    ) -> None:
        self._answers, self._writers, self._places, self._total = answers, writers, places, total
        self._columns: dict[str, list[bytes]] = {}
        self._wanted: dict[tuple[str, ...], list[list[bytes]]] = {}

    def body(self, heads: tuple[str, ...], part: slice, single: bool) -> bytes:
        """The JSON of some rows: an object that stands alone, or a list of predictions."""
        columns = self._wanted.get(heads)
        if columns is None:
            columns = self._wanted[heads] = [self._column(head) for head in heads]
        if single:
            place = part.start
            return b"{" + b",".join([column[place] for column in columns]) + b"}"
        rows = zip(*[column[part] for column in columns], strict=True)
        return b'{"predictions":[{' + b"},{".join([b",".join(row) for row in rows]) + b"}]}"

    def _column(self, head: str) -> list[bytes]:
        column = self._columns.get(head)
        if column is None:
            column = self._writers[head].rows(self._answers[head])
            places = self._places.get(head)
            if places is not None:
                whole = [b""] * self._total
                for place, row in zip(places.tolist(), column, strict=True):
                    whole[place] = row
                column = whole
            self._columns[head] = column
        return column


def _numbers(values: Array) -> Sequence[bytes]:
    """Each number `[rows]` as JSON, `float32` in its own shortest form."""
    if not len(values):
        return []
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return text[1:-1].split(b",")


def _vectors(values: Array) -> Sequence[bytes]:
    """Each row of `[rows, numbers]` as a JSON list."""
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return [b"[" + row + b"]" for row in text[2:-2].split(b"],[")]
