"""One head's answer to one row, by the head's kind. What was only asked for by `options` is None where it was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Answer",
    "Classification",
    "Embedding",
    "Entity",
    "Multilabel",
    "OneShot",
    "Regression",
    "Row",
    "Segmentation",
    "Tokens",
    "answer_of",
]

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Classification:
    """The likeliest of several labels.

    Attributes:
        score: its probability.
        index: its place among the head's labels.
        scores: every label's probability (`scores: true`).
        top: the likeliest labels, best first (`top_k`).
        raw: the logits (`raw: true`).
    """

    label: str
    score: float
    index: int
    scores: Mapping[str, float] | None = None
    top: Sequence[Json] | None = None
    raw: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Multilabel:
    """The labels that reach their thresholds, and the probability of each; `all_scores` by `scores: true`."""

    labels: Sequence[str]
    scores: Sequence[float]
    all_scores: Mapping[str, float] | None = None
    raw: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Regression:
    """A value, or several where the head has several, in a unit."""

    value: float | Sequence[float]
    unit: str
    raw: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """A vector, `float32 [dim]`."""

    vector: Vector
    raw: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """Words of a text under one label. `start` and `end` count code points; `text[start:end]` is `text`."""

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """The entities of a text; `words`, each with its label, by `scores: true`."""

    entities: Sequence[Entity]
    words: Sequence[Json] | None = None
    raw: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A label for each pixel.

    Attributes:
        labels: those that are there; `areas` is the share of each.
        size: height and width.
        runs: label index and number of pixels, row by row; None where a PNG was asked for.
        png: the mask as a gray PNG in base64 (`mask: "png"`).
    """

    labels: Sequence[str]
    areas: Sequence[float]
    size: Sequence[int]
    runs: Sequence[Sequence[int]] | None = None
    png: str | None = None
    raw: Any = None

    def mask(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """The label index of each pixel, `int64 [height, width]`.

        Raises:
            ValueError: the answer has a PNG in place of runs.
        """
        if self.runs is None:
            raise ValueError('the mask came as a PNG: read `png`, or ask without `mask: "png"`')
        runs = np.asarray(self.runs, dtype=np.int64).reshape(-1, 2)
        return np.repeat(runs[:, 0], runs[:, 1]).reshape(tuple(self.size))


@dataclass(frozen=True, slots=True)
class OneShot:
    """The nearest enrolled class; nothing where none is enrolled, no label where none is near enough."""

    label: str | None
    score: float | None
    distance: float | None
    scores: Mapping[str, float] | None = None
    top: Sequence[Json] | None = None
    raw: Sequence[float] | None = None


Answer = Classification | Multilabel | Regression | Embedding | Tokens | Segmentation | OneShot
Row = dict[str, Answer]  # by head

# A key that only answers of this kind have; looked for in this order.
KINDS: dict[str, type[Any]] = {
    "entities": Tokens,
    "vector": Embedding,
    "areas": Segmentation,
    "distance": OneShot,
    "value": Regression,
    "labels": Multilabel,
    "label": Classification,
}


def answer_of(content: Json) -> Answer:
    """One head's answer in JSON, as an object of its kind.

    Raises:
        ValueError: it is of no kind that is known here.
    """
    kind = next((kind for key, kind in KINDS.items() if key in content), None)
    if kind is None:
        raise ValueError(f"an answer with {', '.join(content) or 'nothing'}")
    values = dict(content)
    try:
        if kind is Tokens:
            values["entities"] = [Entity(**entity) for entity in values["entities"]]
        if kind is Embedding:
            values["vector"] = np.asarray(values["vector"], dtype=np.float32)
        made: Answer = kind(**values)
    except TypeError as error:
        raise ValueError(f"an answer that this client does not know ({error}): install the server's version") from None
    return made
