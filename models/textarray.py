"""Texts as an array of bytes, so that they travel in the safetensors files that hold everything else. Numpy only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["array_to_texts", "texts_to_array"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def texts_to_array(texts: Sequence[str]) -> Array:
    """A list of texts as the UTF-8 bytes of its JSON, `uint8 [bytes]`."""
    return np.frombuffer(json.dumps(list(texts), ensure_ascii=False).encode(), dtype=np.uint8)


def array_to_texts(array: Array) -> list[str]:
    """The texts of such an array.

    Raises:
        ValueError: it holds something else.
    """
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"texts are uint8 [bytes], got {array.dtype} {list(array.shape)}")
    texts = json.loads(array.tobytes())
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a list of texts")
    return texts
