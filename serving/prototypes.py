"""The enrolled classes of a oneshot head: one vector each, the mean of its examples' vectors.

Snell, Swersky & Zemel 2017, "Prototypical Networks for Few-shot Learning": a row belongs to the class whose prototype
is nearest by Euclidean distance. Enrolling a class is adding a vector; nothing is trained.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Self

import numpy as np
import safetensors
import safetensors.numpy

from polyhead.models.textarray import array_to_texts, texts_to_array
from polyhead.serving.golden import Array

__all__ = ["Prototypes", "prototypes_file"]

MAX_DIFFERENCES = 1 << 22  # numbers that are held at a time while distances are computed


def prototypes_file(head: str) -> str:
    """Where a bundle keeps a head's prototypes."""
    return f"prototypes/{head}.safetensors"


@dataclass(frozen=True)
class Prototypes:
    """The classes of one head.

    Attributes:
        labels: one per class, all different.
        vectors: `float32 [classes, dim]`.
        examples: how many rows each prototype is the mean of, `int64 [classes]`.
    """

    labels: tuple[str, ...]
    vectors: Array
    examples: Array

    @classmethod
    def empty(cls, dim: int) -> Self:
        """No class."""
        return cls((), np.zeros((0, dim), dtype=np.float32), np.zeros(0, dtype=np.int64))

    def enrol(self, label: str, vectors: Array) -> Prototypes:
        """With one more class, or with more examples of a class that is there.

        Args:
            label: the class.
            vectors: the head's output for its examples, `[examples, dim]`.

        Raises:
            ValueError: there is no label or no example, or they are of another width, or not finite.
        """
        if not label or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
            raise ValueError("a label is text without control characters")
        if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"examples {list(vectors.shape)}, wanted [1 or more, {self.vectors.shape[1]}]")
        if not np.isfinite(vectors).all():
            raise ValueError("an example's vector is not finite")
        total, count = vectors.sum(axis=0, dtype=np.float64), len(vectors)
        labels, means, examples = list(self.labels), list(self.vectors), list(self.examples.tolist())
        if label in labels:
            index = labels.index(label)
            total = total + means[index].astype(np.float64) * examples[index]
            count += examples[index]
            means[index], examples[index] = (total / count).astype(np.float32), count
        else:
            labels, means, examples = [*labels, label], [*means, (total / count).astype(np.float32)], [*examples, count]
        return Prototypes(tuple(labels), np.stack(means).astype(np.float32), np.array(examples, dtype=np.int64))

    def distances(self, vectors: Array) -> Array:
        """Euclidean distance of each row to each class, `float64 [rows, classes]`, as their squares need."""
        # Differences, not the expanded square: near a prototype the latter cancels to noise. Few rows at a time: all
        # the differences of a large batch from many classes would be gigabytes.
        step = max(1, MAX_DIFFERENCES // max(1, self.vectors.size))
        result = np.empty((len(vectors), len(self.labels)))
        for start in range(0, len(vectors), step):
            part = slice(start, start + step)
            wide = vectors[part, None, :].astype(np.float64)
            result[part] = np.linalg.norm(wide - self.vectors[None], axis=2)
        return result

    def dump(self) -> bytes:
        """As safetensors."""
        return safetensors.numpy.save(
            {
                "labels": texts_to_array(list(self.labels)),
                "vectors": np.ascontiguousarray(self.vectors),
                "examples": self.examples,
            }
        )

    @classmethod
    def load(cls, data: bytes, dim: int) -> Self:
        """Read what `dump` wrote.

        Raises:
            ValueError: it is something else, or of another width.
        """
        try:
            arrays = safetensors.numpy.load(data)
            labels = tuple(array_to_texts(arrays["labels"]))
            found = cls(labels, arrays["vectors"], arrays["examples"])
        except (safetensors.SafetensorError, KeyError, RecursionError) as error:
            raise ValueError(f"not prototypes: {error}") from None
        same = len(set(labels)) == len(labels) and found.examples.shape == (len(labels),)
        if not same or found.vectors.shape != (len(labels), dim) or found.vectors.dtype != np.float32:
            raise ValueError(f"{len(labels)} labels with vectors {list(found.vectors.shape)}, wanted [labels, {dim}]")
        if not np.isfinite(found.vectors).all():
            raise ValueError("a vector is not finite")
        if found.examples.dtype != np.int64 or (found.examples < 1).any():
            raise ValueError("the numbers of examples are no whole numbers of 1 or more")
        return found
