"""numpy's `application/x-npy`: an array of rows in, an array of one head's raw numbers out. Nothing is unpickled.

The header is a Python literal; it is read by a pattern and never evaluated.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from polyhead.models.spec import ModelSpec, TextInput
from polyhead.serving.errors import InvalidInstance, MalformedBody, UnsupportedMediaType
from polyhead.serving.golden import Array
from polyhead.serving.protocol.accept import NPY
from polyhead.serving.protocol.columns import from_array, require_room
from polyhead.serving.protocol.headsheader import named_heads
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.protocol.rawnumbers import raw_numbers
from polyhead.serving.request import Body, HttpRequest, HttpResponse, Query
from polyhead.serving.settings import Settings

if TYPE_CHECKING:
    from polyhead.serving.answers import HeadAnswers

__all__ = ["decode", "encode", "fits", "read"]

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 4096  # numpy writes 118 bytes for any array of a few dimensions
# One entry of the header's dict. `L` is what Python 2 wrote behind a long.
ENTRY = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>\w{1,20})(?P=quote)\s*:\s*"""
    r"""(?:(?P<mark>['"])(?P<text>[^'"\\]{1,20})(?P=mark)|(?P<flag>True|False)|\((?P<shape>[\d\s,L]*)\))\s*(?:,|$)"""
)
NUMBERS = re.compile(r"[<>|=]?(f[248]|[iu][1248]|b1)")


def fits(spec: ModelSpec) -> bool:
    """Whether one array can be the rows of a model: its only input is a tensor or an image."""
    return len(spec.inputs) == 1 and not isinstance(next(iter(spec.inputs.values())), TextInput)


def decode(request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:
    """An array `[rows, …]` of the only input to a query.

    Raises:
        RequestError: it is no such array.
    """
    ((name, only),) = spec.inputs.items() if len(spec.inputs) == 1 else ((None, None),)
    if name is None or only is None or isinstance(only, TextInput):
        raise UnsupportedMediaType(
            f"media type {NPY} is one array of numbers, and the inputs of model {spec.name} are "
            f"{', '.join(f'{n} ({s.kind})' for n, s in spec.inputs.items())}: send application/json"
        )
    heads = named_heads(spec, request.headers)
    array = read(request.body)
    if not array.ndim:
        raise InvalidInstance(f"input {name!r}: one number, wanted an array whose first dimension counts the rows")
    require_room(spec, len(array), settings)
    inputs = {name: from_array(name, only, array, (), settings.max_input_bytes)}
    require_lengths(spec, inputs)
    return Query(len(array), inputs, heads)


def encode(query: Query, answers: Mapping[str, HeadAnswers], parts: Mapping[str, slice]) -> HttpResponse:
    """The raw numbers of the query's only head, `[rows, …]`. See `Encode`."""
    (head,) = query.heads
    return HttpResponse(200, "OK", _written(raw_numbers(head, answers[head], parts[head])), NPY)


def _written(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def read(body: Body) -> Array:
    """The array of a `.npy` file, over the file's own bytes.

    Raises:
        MalformedBody: it is no such file, or not whole.
        InvalidInstance: it holds something else than numbers.
    """
    view = memoryview(body)
    prefix = bytes(view[:12])
    version = prefix[6:8]
    if prefix[:6] != MAGIC or version not in (b"\x01\x00", b"\x02\x00") or len(prefix) < 12:
        raise MalformedBody("the body is no .npy file of version 1 or 2: write it with numpy.save")
    start, width = 8 + 2 * version[0], 2 * version[0]
    length = int.from_bytes(prefix[8 : 8 + width], "little")
    if length > LONGEST_HEADER or start + length > len(view):
        raise MalformedBody(f"the .npy header has {length} bytes, and the body {len(view)}: send the file as it is")
    dtype, fortran, shape = _header(bytes(view[start : start + length]).decode("latin-1"))
    data = view[start + length :]
    size = prod(shape) * dtype.itemsize
    if size != len(data):
        raise MalformedBody(f"the .npy header says {size} bytes of numbers, the body has {len(data)}: send all of it")
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise InvalidInstance("bytes of a bool are 0 or 1")
    if not size:
        raise InvalidInstance("the .npy file holds no numbers: there must be one row or more")
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _header(text: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    malformed = MalformedBody("the .npy header is not the dict of descr, fortran_order and shape: use numpy.save")
    text = text.strip()
    if text[:1] != "{" or text[-1:] != "}":
        raise malformed
    found: dict[str, str] = {}
    place, inside = 0, text[1:-1].strip()
    while place < len(inside):
        entry = ENTRY.match(inside, place)
        if entry is None or entry["key"] in found:
            raise malformed
        found[entry["key"]] = next(entry[kind] for kind in ("text", "flag", "shape") if entry[kind] is not None)
        place = entry.end()
    numbers = [number.strip().rstrip("L") for number in found.get("shape", "x").split(",")]
    if set(found) != {"descr", "fortran_order", "shape"} or found["fortran_order"] not in ("True", "False"):
        raise malformed
    if not all(number.isdecimal() and len(number) < 16 for number in numbers if number) or len(numbers) > 32:
        raise malformed
    if NUMBERS.fullmatch(found["descr"]) is None:
        raise InvalidInstance(f"an array of dtype {found['descr']!r:.40} is no array of numbers: convert it first")
    shape = tuple(int(number) for number in numbers if number)
    return np.dtype(found["descr"]), found["fortran_order"] == "True", shape
