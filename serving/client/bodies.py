"""Rows to the bodies of requests: binary where they are numbers, cut where they are many."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

__all__ = ["HEADS_HEADER", "JSON", "NPY", "OPTIONS_HEADER", "Body", "Cut", "bodies"]

JSON, NPY = "application/json", "application/x-npy"
HEADS_HEADER, OPTIONS_HEADER = "X-Polyhead-Heads", "X-Polyhead-Options"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Cut:
    """What one request may hold: rows, and bytes of its body. A row alone is sent however long it is."""

    rows: int = 1024
    size: int = 4 * 1024 * 1024


@dataclass(frozen=True)
class Body:
    """One request.

    Attributes:
        first: the number of its first row among all.
        rows: how many.
        single: the answer is one row's, outside of any list.
    """

    content: bytes
    media_type: str
    first: int = 0
    rows: int = 1
    single: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def bodies(
    rows: Array | Sequence[Any], heads: Sequence[str] | None, options: Mapping[str, Any] | None, cut: Cut
) -> Iterator[Body]:
    """The requests that hold all rows, in their order.

    Args:
        rows: an array `[rows, …]` of the model's only input, which goes as numpy's `.npy`; or a sequence of rows in
            the contract's JSON, in which `bytes` are image files and arrays are numbers.
        heads: the heads wanted; all where None.
        options: of the contract.

    Raises:
        TypeError: a row is nothing that JSON can say.
    """
    array = _as_array(rows)
    if array is None:
        return _json(rows, heads, options, cut)
    return _npy(array, heads, options, cut)


def _as_array(rows: Array | Sequence[Any]) -> Array | None:
    """The rows as one array of numbers; None where they are none."""
    if isinstance(rows, np.ndarray):
        return rows if rows.ndim and rows.dtype.kind in "biuf" else None
    if len(rows) and all(isinstance(row, np.ndarray) for row in rows):
        first = rows[0]
        if first.dtype.kind in "biuf" and all(r.shape == first.shape and r.dtype == first.dtype for r in rows):
            return np.stack(rows)
    return None


def _npy(array: Array, heads: Sequence[str] | None, options: Mapping[str, Any] | None, cut: Cut) -> Iterator[Body]:
    headers = {} if heads is None else {HEADS_HEADER: ",".join(heads)}
    if options:
        headers[OPTIONS_HEADER] = orjson.dumps(dict(options)).decode()
    size = max(1, array[:1].nbytes)
    step = max(1, min(cut.rows, cut.size // size))
    for first in range(0, len(array), step):
        part = array[first : first + step]
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(part), allow_pickle=False)
        yield Body(buffer.getvalue(), NPY, first, len(part), headers=headers)


def _json(
    rows: Array | Sequence[Any], heads: Sequence[str] | None, options: Mapping[str, Any] | None, cut: Cut
) -> Iterator[Body]:
    rest: dict[str, Any] = {}
    if heads is not None:
        rest["heads"] = list(heads)
    if options:
        rest["options"] = dict(options)
    tail = b"]" + (b"," + orjson.dumps(rest)[1:] if rest else b"}")
    first, size, parts = 0, 0, list[bytes]()
    for index, row in enumerate(rows):
        part = orjson.dumps(_row(row), option=orjson.OPT_SERIALIZE_NUMPY)
        if parts and (len(parts) == cut.rows or size + len(part) > cut.size):
            yield Body(b'{"instances":[' + b",".join(parts) + tail, JSON, first, len(parts))
            first, size, parts = index, 0, []
        parts.append(part)
        size += len(part) + 1
    if parts:
        yield Body(b'{"instances":[' + b",".join(parts) + tail, JSON, first, len(parts))


def _row(row: Any) -> Any:
    """A row with its files in base64 and its arrays as orjson writes them."""
    if isinstance(row, bytes | bytearray | memoryview):
        return {"b64": base64.b64encode(row).decode()}
    if isinstance(row, np.ndarray):
        return np.ascontiguousarray(row) if row.dtype.kind in "biuf" else row.tolist()
    if isinstance(row, Mapping):
        return {name: _row(value) for name, value in row.items()}
    return row
