"""Tensors of the Open Inference Protocol: numbers, strings and files, in JSON or in bytes behind it, to one input."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from polyhead.models.spec import ImageInput, InputSpec, TensorInput, TextInput
from polyhead.serving.errors import InvalidInstance, MalformedBody, Place
from polyhead.serving.golden import Array
from polyhead.serving.protocol import images, rows
from polyhead.serving.protocol.columns import from_array
from polyhead.serving.request import Values
from polyhead.serving.settings import Settings

__all__ = ["DATATYPES", "TensorBody", "column"]

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


@dataclass(frozen=True, slots=True)
class TensorBody:
    """One tensor of a request, its shape and size not yet believed.

    Attributes:
        datatype: one of `DATATYPES`, or BYTES.
        shape: as it is sent, the rows first.
        data: the JSON of its values, flat or nested; or their bytes.
        loc: of the tensor in the body.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview
    loc: Place


def column(tensor: TensorBody, spec: InputSpec, settings: Settings) -> Values:
    """Every row of one input.

    Raises:
        RequestError: the tensor does not fit the input, or its values do not fit its shape.
    """
    if isinstance(spec, TextInput):
        return [_text(tensor, item, row) for row, item in enumerate(_items(tensor, "a text"))]
    if isinstance(spec, ImageInput) and tensor.datatype == "BYTES":
        budget = images.PixelBudget(settings.max_image_pixels)
        files = [_file(tensor, item, row) for row, item in enumerate(_items(tensor, "an image"))]
        return np.stack(
            [images.decode(file, spec, budget, ("instances", row, tensor.name)) for row, file in enumerate(files)]
        )
    if tensor.datatype not in DATATYPES:
        raise InvalidInstance(
            f"input {tensor.name!r}: datatype {tensor.datatype!r:.20}, wanted numbers of {spec.dtype}", tensor.loc
        )
    return from_array(tensor.name, spec, _numbers(tensor), tensor.loc, settings.max_input_bytes)


def _numbers(tensor: TensorBody) -> Array:
    dtype: Any = DATATYPES[tensor.datatype]
    if isinstance(tensor.data, memoryview):
        array: Array = np.frombuffer(
            _sized(tensor, tensor.data, np.dtype(dtype).itemsize), f"<{np.dtype(dtype).str[1:]}"
        )
        if dtype == "bool" and len(tensor.data) and max(tensor.data) > 1:
            raise InvalidInstance(f"input {tensor.name!r}: bytes of a BOOL are 0 or 1", tensor.loc)
        return array.reshape(tensor.shape)
    nested = bool(tensor.data) and isinstance(tensor.data[0], list)
    shape = tensor.shape if nested else (prod(tensor.shape),)
    declared: TensorInput = TensorInput.model_construct(kind="tensor", dtype=dtype, shape=shape)  # of the wire, no spec
    return rows.from_json(tensor.name, declared, tensor.data, shape, tensor.loc).reshape(tensor.shape)


def _sized(tensor: TensorBody, data: memoryview, itemsize: int) -> memoryview:
    size = prod(tensor.shape) * itemsize
    if len(data) != size or not size:
        raise InvalidInstance(
            f"input {tensor.name!r}: {len(data)} bytes, and shape {list(tensor.shape)} of {tensor.datatype} are {size}",
            tensor.loc,
        )
    return data


def _items(tensor: TensorBody, what: str) -> Sequence[Any]:
    """The strings of a BYTES tensor `[rows]` or `[rows, 1]`: of JSON, or bytes with their length in front."""
    if tensor.datatype != "BYTES" or len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)):
        raise InvalidInstance(
            f"input {tensor.name!r}: {tensor.datatype:.20} of shape {list(tensor.shape)}, "
            f"{what} in each row is BYTES of shape [rows] or [rows, 1]",
            tensor.loc,
        )
    count = tensor.shape[0]
    items = _lengthy(tensor, tensor.data) if isinstance(tensor.data, memoryview) else tensor.data
    if len(tensor.shape) == 2 and items and all(isinstance(item, list) and len(item) == 1 for item in items):
        items = [item[0] for item in items]
    if len(items) != count:
        raise InvalidInstance(
            f"input {tensor.name!r}: {len(items)} values, shape {list(tensor.shape)} has {count}", tensor.loc
        )
    return items


def _lengthy(tensor: TensorBody, data: memoryview) -> list[memoryview]:
    items: list[memoryview] = []
    place, count = 0, tensor.shape[0]
    while place < len(data) and len(items) < count:
        end = place + 4 + int.from_bytes(data[place : place + 4], "little")
        if end > len(data):
            break
        items.append(data[place + 4 : end])
        place = end
    if place != len(data):
        raise MalformedBody(
            f"input {tensor.name!r}: the BYTES are not {count} values, each behind its length in 4 bytes", tensor.loc
        )
    return items


def _text(tensor: TensorBody, item: Any, row: int) -> str:
    place: Place = ("instances", row, tensor.name)
    if isinstance(item, memoryview):
        return rows.from_utf8(tensor.name, item, place)
    if not isinstance(item, str):
        raise InvalidInstance(f"input {tensor.name!r}: wanted a string", place)
    return item


def _file(tensor: TensorBody, item: Any, row: int) -> bytes | memoryview:
    place: Place = ("instances", row, tensor.name)
    if isinstance(item, memoryview):
        return item
    if not isinstance(item, str):
        raise InvalidInstance(f"input {tensor.name!r}: wanted an image in base64, a string", place)
    try:
        return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedBody(f"input {tensor.name!r}: not valid base64", place) from None
