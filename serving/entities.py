"""Labels of tokens to entities: what they are, the words they cover, and where these stand in the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polyhead.models.bio import spans
from polyhead.models.tokenizer import Encoding
from polyhead.serving.golden import Array

__all__ = ["entities", "words"]


def entities(encoding: Encoding, best: Array, scores: Array, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The entities of one text.

    Args:
        encoding: of the text, with its words.
        best: the label index of each token, `[sequence]`.
        scores: its probability, `[sequence]`.
        labels: of the head.

    Returns:
        In the order of the text, each with `label`, `text`, `start`, `end` (Unicode code points, end exclusive) and
        `score`, the mean over the entity's words.
    """
    chosen = best[encoding.words]
    certain = scores[encoding.words]
    found = []
    for first, stop, kind in spans(chosen.tolist(), labels):
        start, end = int(encoding.spans[first, 0]), int(encoding.spans[stop - 1, 1])
        score = certain[first:stop].mean(dtype=np.float32)
        found.append({"label": kind, "text": encoding.text[start:end], "start": start, "end": end, "score": score})
    return found


def words(encoding: Encoding, best: Array, scores: Array, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Every word of one text with its own label, as `entities` has them."""
    return [
        {
            "text": encoding.text[start:end],
            "start": start,
            "end": end,
            "label": labels[best[position]],
            "score": scores[position],
        }
        for position, (start, end) in zip(encoding.words.tolist(), encoding.spans.tolist(), strict=True)
    ]
