"""A map of label indices, one per pixel, as run lengths or as a PNG."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from polyhead.serving.golden import Array

__all__ = ["png", "runs"]


def runs(mask: Array) -> Array:
    """Run lengths in the order of reading, row by row: `int64 [runs, 2]`, label index and number of pixels."""
    flat = mask.reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(np.append(starts, flat.size))
    return np.stack([flat[starts].astype(np.int64), lengths], axis=1)


def png(mask: Array) -> str:
    """A gray PNG in base64 whose pixels are the label indices: 8 bits, 16 where an index needs them."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8 if mask.max(initial=0) < 256 else np.uint16)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
