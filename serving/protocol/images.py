"""Images: encoded bytes to the pixels that the spec describes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock

import numpy as np
from PIL import Image, UnidentifiedImageError

from polyhead.models.spec import ImageInput
from polyhead.serving.errors import InvalidInstance, MalformedBody, PayloadTooLarge, Place
from polyhead.serving.golden import Array

__all__ = ["PixelBudget", "decode", "encode_png"]

# Only these decoders are ever tried on a stranger's bytes; Pillow has dozens.
LOCK = Lock()
FORMATS = ("PNG", "JPEG")
MODES = {"gray": "L", "rgb": "RGB", "bgr": "RGB"}


class PixelBudget:
    """The pixels that the images of one request may still have: a few kilobytes can hold millions of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit

    def take(self, width: int, height: int, loc: Place) -> None:
        """Count an image before it is decompressed.

        Raises:
            PayloadTooLarge: the request's images are more than the limit, this one included.
        """
        self._left -= width * height
        if self._left < 0:
            raise PayloadTooLarge(
                f"image of {width} x {height} pixels: allowed are {self._limit} in all (max_image_pixels)", loc
            )


def decode(data: bytes | bytearray | memoryview, spec: ImageInput, budget: PixelBudget, loc: Place) -> Array:
    """PNG or JPEG bytes to `uint8 [height, width, channels]` of the spec's size and channel order.

    Raises:
        MalformedBody: it is neither, or cut short.
        PayloadTooLarge: it has more pixels than the budget has left; nothing is decompressed to find out.
        InvalidInstance: it has another size and the spec's resize rule is `none`.
    """
    try:
        with _quietly():
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        budget.take(width, height, loc)
        if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip instead of scale
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        with _quietly() if image.mode == "P" else nullcontext():  # it warns of odd palettes
            image = image.convert(MODES[spec.channels])
    except Image.DecompressionBombError:
        raise PayloadTooLarge("image of far more pixels than any request may have", loc) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        raise MalformedBody(
            f"the {len(data)} bytes are no whole PNG or JPEG image: send the file as it is", loc
        ) from None
    rows, columns = spec.size
    if (width, height) != (columns, rows):
        if spec.resize == "none":
            raise InvalidInstance(
                f"image of {width} x {height} pixels, the model takes {columns} x {rows}: resize it", loc
            )
        image = image.resize((columns, rows), resample=Image.Resampling[spec.resize.upper()])
    pixels = np.asarray(image, dtype=np.uint8).reshape(rows, columns, spec.depth)
    return np.ascontiguousarray(pixels[..., ::-1]) if spec.channels == "bgr" else pixels


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings of Pillow's: our own limit is checked, and oddities are the sender's.

    What Python warns of is one for all threads: hence the lock, under which nothing is decoded but palettes.
    """
    with LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # 89 million, whatever our own limit is
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def encode_png(pixels: Array, spec: ImageInput) -> bytes:
    """`uint8 [height, width, channels]` to PNG bytes: what `decode` reads back to the same pixels."""
    ordered = pixels[..., ::-1] if spec.channels == "bgr" else pixels
    buffer = io.BytesIO()
    Image.fromarray(ordered[..., 0] if spec.depth == 1 else np.ascontiguousarray(ordered)).save(buffer, "PNG")
    return buffer.getvalue()
