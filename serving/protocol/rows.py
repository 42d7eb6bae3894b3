"""Values of one input, from JSON or raw bytes, to arrays of the spec's dtype and shape."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from polyhead.models.spec import ImageInput, InputSpec, TensorInput, TextInput
from polyhead.serving.errors import InputNotFinite, InvalidInstance, MalformedBody, Place
from polyhead.serving.golden import Array
from polyhead.serving.protocol import images

__all__ = ["from_bytes", "from_json", "from_utf8", "parse", "row_bytes"]


def parse(name: str, spec: InputSpec, values: Sequence[Any], max_pixels: int) -> Array | list[Array] | list[str]:
    """One input's values of every instance, to one array `[rows, …]`, a list of arrays where shapes are free, or texts.

    Numbers are converted all at once; only where that fails are they looked at row by row, to name the culprit.
    """
    if isinstance(spec, TensorInput) and not spec.free:
        try:
            return from_json(name, spec, values, (len(values), *spec.shape), ("instances",))
        except InvalidInstance:
            pass  # the loop below raises with the row's place
    if isinstance(spec, TextInput):
        return [_text_of(name, value, ("instances", index, name)) for index, value in enumerate(values)]
    rows = []
    budget = images.PixelBudget(max_pixels)
    for index, value in enumerate(values):
        loc: Place = ("instances", index, name)
        if isinstance(spec, ImageInput):
            rows.append(_image(name, spec, value, budget, loc))
        else:
            rows.append(from_json(name, spec, value, spec.shape, loc))
    return rows if isinstance(spec, TensorInput) and spec.free else np.stack(rows)


def from_json(name: str, spec: TensorInput, value: Any, shape: Sequence[int | str], loc: Place) -> Array:
    """Nested lists of numbers to an array of the spec's dtype.

    Raises:
        InvalidInstance: no numbers, ragged, out of the dtype's range, or of another shape.
        InputNotFinite: NaN or infinity, also by overflow of the dtype.
    """
    wanted = np.dtype(spec.dtype)
    # Before numpy sees it: it would take true for 1 among numbers, and widen every entry to the longest string.
    odd = _leaf_types(value) - ({bool} if wanted.kind == "b" else {int, float})
    if odd - {list}:
        raise InvalidInstance(f"input {name!r}: wanted {spec.dtype} numbers, got {_sample(value)}", loc)
    try:
        array = np.asarray([] if odd else value)
    except (ValueError, OverflowError):
        odd = {list}
    if odd:
        raise InvalidInstance(f"input {name!r}: lists of different lengths, wanted shape {_text(shape)}", loc)
    kinds = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[wanted.kind]
    if array.size == 0:
        array = array.astype(wanted)
    if array.dtype.kind not in kinds:
        raise InvalidInstance(f"input {name!r}: wanted {spec.dtype} numbers, got {_sample(value)}", loc)
    require_shape(name, array, shape, loc)
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InvalidInstance(f"input {name!r}: values outside {limits.min} to {limits.max} of {spec.dtype}", loc)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=wanted)
    require_finite(name, array, loc)
    return array


def from_bytes(name: str, spec: TensorInput, data: bytes | bytearray | memoryview, loc: Place) -> Array:
    """Little-endian numbers, without a copy where the bytes allow, to one row `[1, …]`; one free dimension is inferred.

    Raises:
        InvalidInstance: the number of bytes does not make the shape, or does not tell it.
        InputNotFinite: NaN or infinity.
    """
    dtype, unit, shape = _layout(spec.dtype, spec.shape)
    if len(spec.free) > 1:
        raise InvalidInstance(
            f"input {name!r}: {len(data)} bytes do not tell the lengths in shape {_text(spec.shape)}: send JSON", loc
        )
    if (len(data) % unit if spec.free else len(data) != unit) or not data:
        raise InvalidInstance(
            f"input {name!r}: {len(data)} bytes, wanted {spec.dtype} little-endian of shape {_text(spec.shape)} "
            f"({'a multiple of ' if spec.free else ''}{unit} bytes)",
            loc,
        )
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    if spec.dtype == "bool" and max(data) > 1:
        raise InvalidInstance(f"input {name!r}: bytes of a bool are 0 or 1, got {max(data)}", loc)
    if not dtype.isnative:
        array = array.astype(spec.dtype)
    require_finite(name, array, loc)
    return array


def require_finite(name: str, array: Array, loc: Place) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputNotFinite: there is one.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise InputNotFinite(f"input {name!r}: {count} of {array.size} values are NaN or infinite", loc)


@cache
def _layout(dtype: str, shape: tuple[int | str, ...]) -> tuple[np.dtype[Any], int, tuple[int, ...]]:
    """Of one row in bytes: the dtype, little-endian; the size where free dimensions are 1; the shape with the batch."""
    little = np.dtype(dtype).newbyteorder("<")
    fixed = [d for d in shape if isinstance(d, int)]
    return (
        little,
        int(np.prod(fixed, dtype=np.int64)) * little.itemsize,
        (1, *(d if isinstance(d, int) else -1 for d in shape)),
    )


def row_bytes(spec: InputSpec) -> int:
    """Bytes of one row as the graph takes it; a free dimension counts once, for the body's size bounds its length."""
    if not isinstance(spec, ImageInput | TensorInput):
        return 0
    return _layout(spec.dtype, spec.shape)[1]


def _text_of(name: str, value: Any, loc: Place) -> str:
    if not isinstance(value, str):
        got = "a list" if isinstance(value, list) else _sample(value)
        raise InvalidInstance(f"input {name!r}: wanted a string, got {got}", loc)
    return value


def from_utf8(name: str, data: bytes | bytearray | memoryview, loc: Place) -> str:
    """A body that is one text.

    Raises:
        MalformedBody: it is not UTF-8.
    """
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"input {name!r}: the body is not UTF-8 (byte {error.start})", loc) from None


def _image(name: str, spec: ImageInput, value: Any, budget: images.PixelBudget, loc: Place) -> Array:
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            data = base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise MalformedBody("b64 is not valid base64", (*loc, "b64")) from None
        return images.decode(data, spec, budget, (*loc, "b64"))
    if not isinstance(value, list):
        raise InvalidInstance(
            'an image is {"b64": "<PNG or JPEG in base64>"} or nested lists of pixels, '
            f"[height][width][channels] from 0 to 255; got {_sample(value)}",
            loc,
        )
    pixels = TensorInput(kind="tensor", dtype="uint8", shape=spec.shape)
    depth_left_out = spec.depth == 1 and _depth(value) == 2
    shape = spec.size if depth_left_out else pixels.shape
    return from_json(name, pixels, value, shape, loc).reshape(spec.shape)


def _leaf_types(value: Any) -> set[type]:
    """The types of everything in nested lists that is no list; lists of uneven depth count as a type themselves."""
    layer = [value]
    while (types := set(map(type, layer))) == {list}:
        layer = list(chain.from_iterable(layer))
    return types


def _depth(value: Any) -> int:
    return 1 + _depth(value[0]) if isinstance(value, list) and value else int(isinstance(value, list))


def require_shape(name: str, array: Array, shape: Sequence[int | str], loc: Place) -> None:
    """Refuse an array of another shape; a free dimension, or what counts the rows, is a name.

    Raises:
        InvalidInstance: naming both shapes.
    """
    same = array.ndim == len(shape) and all(
        isinstance(w, str) or g == w for g, w in zip(array.shape, shape, strict=True)
    )
    if not same or 0 in array.shape:
        raise InvalidInstance(f"input {name!r}: shape {_text(array.shape)}, wanted {_text(shape)}", loc)


def _text(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(d) for d in shape) + "]"


def _sample(value: Any) -> str:
    """What was got, in a few words."""
    while isinstance(value, list) and value:
        odd = next((v for v in value if isinstance(v, str) or v is None or isinstance(v, dict | bool)), value[0])
        value = odd
    words = {type(None): "null", bool: "true or false", str: "a string", dict: "an object", list: "an empty list"}
    return words.get(type(value)) or f"{value!r:.40}"
