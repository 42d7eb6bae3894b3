"""A head's raw numbers for the rows of one request, as one array, whatever stood beside them in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polyhead.models.spec import SegmentationHead, TokensHead
from polyhead.serving.errors import NotAcceptable
from polyhead.serving.golden import Array

if TYPE_CHECKING:
    from polyhead.serving.answers import HeadAnswers

__all__ = ["raw_numbers"]


def raw_numbers(head: str, answers: HeadAnswers, part: slice) -> Array:
    """Logits, values or vectors as the graph gave them, `float32 [rows, …]`.

    A tokens head's are as long as the longest text of the request, zeros behind the shorter ones.

    Raises:
        NotAcceptable: masks of several sizes are no one array.
    """
    rows = answers.output[part]
    if isinstance(answers.spec, TokensHead):
        lengths = [len(text.ids) for text in answers.texts[part]]
        cut = np.array(answers.numbers[part, : max(lengths)])
        for row, length in zip(cut, lengths, strict=True):
            row[length:] = 0
        return cut
    if isinstance(answers.spec, SegmentationHead) and len({row.shape for row in rows}) > 1:
        raise NotAcceptable(
            f"head {head!r} gives masks of several sizes, which are no one array: "
            "ask for application/json, or send rows of one size"
        )
    return np.stack(rows) if isinstance(rows, list) else rows
