"""Arrow streams: one column per input, read from the request's own bytes; no number becomes a Python object."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from polyhead.models.spec import ImageInput, InputSpec, ModelSpec, TensorInput, TextInput
from polyhead.serving.errors import InvalidInstance, MalformedBody, PayloadTooLarge
from polyhead.serving.golden import Array
from polyhead.serving.protocol import arrowcolumns, images
from polyhead.serving.protocol.arrowmessages import inflated_size
from polyhead.serving.protocol.columns import from_array, require_room
from polyhead.serving.protocol.headsheader import named_heads
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.request import HttpRequest, Query, Values
from polyhead.serving.settings import Settings

__all__ = ["decode", "numbers"]


def decode(request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:
    """A stream of record batches to a query.

    Raises:
        RequestError: naming the column, and the row where it is one row's fault.
    """
    heads = named_heads(spec, request.headers)
    try:
        batches = _batches(pa.py_buffer(request.body), spec, settings)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError, KeyError, TypeError, MemoryError):
        raise MalformedBody(
            "the body is no whole and valid Arrow IPC stream: write it with pyarrow.ipc.new_stream"
        ) from None
    inputs = {name: _column(name, value, batches, settings) for name, value in spec.inputs.items()}
    require_lengths(spec, inputs)
    return Query(sum(batch.num_rows for batch in batches), inputs, heads)


def _batches(stream: pa.Buffer, spec: ModelSpec, settings: Settings) -> list[pa.RecordBatch]:
    """The record batches, proven to be what they say, in rows and bytes that a request may have."""
    size = inflated_size(stream)
    if size > settings.max_body_bytes:
        raise PayloadTooLarge(
            f"the compressed columns are {size} bytes when inflated, allowed are {settings.max_body_bytes} a request"
        )
    batches = []
    count = 0
    with pa.ipc.open_stream(stream) as reader:
        _require_inputs(reader.schema, spec)
        for batch in reader:
            count += batch.num_rows
            require_room(spec, max(count, 1), settings)
            batch.validate(full=True)
            if batch.num_rows:
                batches.append(batch)
    require_room(spec, count, settings)
    return batches


def _require_inputs(schema: pa.Schema, spec: ModelSpec) -> None:
    names = schema.names
    known = f"model {spec.name} {spec.version} (inputs: {', '.join(spec.inputs)})"
    for name in names:
        if name not in spec.inputs:
            raise InvalidInstance(f"column {name!r:.80} is no input of {known}: drop it", ("inputs", f"{name:.80}"))
        if names.count(name) > 1:
            raise InvalidInstance(f"column {name!r} stands more than once", ("inputs", name))
    for name in spec.inputs:
        if name not in names:
            raise InvalidInstance(f"column {name!r} is missing, an input of {known}", ("inputs", name))


def _column(name: str, spec: InputSpec, batches: Sequence[pa.RecordBatch], settings: Settings) -> Values:
    """One input of every row."""
    columns = [batch.column(name) for batch in batches]
    if isinstance(spec, TextInput):
        return _objects(name, columns, arrowcolumns.TEXTS, "strings", settings.max_input_bytes)
    if isinstance(spec, ImageInput) and arrowcolumns.holds(columns[0].type, arrowcolumns.BYTES):
        budget = images.PixelBudget(settings.max_image_pixels)
        files = _objects(name, columns, arrowcolumns.BYTES, "files in binary", settings.max_body_bytes)
        return np.stack([images.decode(f, spec, budget, ("instances", i, name)) for i, f in enumerate(files)])
    return numbers(name, spec, columns, settings.max_input_bytes)


def numbers(
    name: str, spec: TensorInput | ImageInput, columns: Sequence[pa.Array], largest: int
) -> Array | list[Array]:
    """A tensor, or an image's pixels, of every row: one array, or one a row where the spec has free dimensions.

    Args:
        name: of the input.
        spec: the input.
        columns: of numbers, in lists or not.
        largest: bytes that all rows may have as the graph takes them.

    Raises:
        InvalidInstance: what `arrowcolumns.arrays` or `from_array` refuses.
        PayloadTooLarge: it would be larger than it may be.
    """
    parts: list[Array] = []
    first, size = 0, 0
    free = isinstance(spec, TensorInput) and bool(spec.free)
    for column in columns:
        for array in arrowcolumns.arrays(name, column, first):
            if array.ndim == 1 and spec.shape == (1,):  # a plain column of numbers, one a row
                array = array[:, None]
            part = from_array(name, spec, array, ("inputs", name), largest - size, first)
            size += array.size * np.dtype(spec.dtype).itemsize
            first += len(part)
            parts.extend(part) if free else parts.append(part)  # type: ignore[arg-type]
    if free:
        return parts
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _objects(name: str, columns: Sequence[pa.Array], kinds: arrowcolumns.Kinds, wanted: str, largest: int) -> list[Any]:
    found: list[Any] = []
    size = 0
    for column in columns:
        part = arrowcolumns.objects(name, column, kinds, wanted, len(found), largest - size)
        size += sum(map(len, part))
        found += part
    return found
