"""One input's values of every row, given as one array: to the spec's dtype and shape, copied only where need be."""

from __future__ import annotations

from typing import Any

import numpy as np

from polyhead.models.spec import ImageInput, ModelSpec, TensorInput
from polyhead.serving.errors import InputNotFinite, InvalidInstance, PayloadTooLarge, Place
from polyhead.serving.golden import Array
from polyhead.serving.protocol import rows
from polyhead.serving.settings import Settings

__all__ = ["from_array", "require_room"]

# By kind of the spec's dtype, the kinds that may be sent in its place: those that JSON takes.
KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}


def require_room(spec: ModelSpec, count: int, settings: Settings, loc: Place = ()) -> None:
    """Refuse more rows than a request may have, before anything is made of them.

    Raises:
        PayloadTooLarge: naming the number and the limit.
        InvalidInstance: there is none.
    """
    if count < 1:
        raise InvalidInstance("there must be one row or more, got none", loc)
    if count > settings.max_rows:
        raise PayloadTooLarge(f"{count} rows, allowed are {settings.max_rows} a request", loc)
    size = count * sum(rows.row_bytes(value) for value in spec.inputs.values())
    if size > settings.max_input_bytes:
        raise PayloadTooLarge(
            f"{count} rows are {size} bytes for the model, allowed are {settings.max_input_bytes} a request: "
            "send fewer rows at a time",
            loc,
        )


def from_array(
    name: str, spec: TensorInput | ImageInput, array: Array, loc: Place, largest: int, first: int = 0
) -> Array | list[Array]:
    """An array of all rows to the array the graph takes; an array per row where the spec has free dimensions.

    Args:
        name: of the input.
        spec: the input. An image is given as its pixels, of the size that the model takes.
        array: `[rows, …]`, of any layout and byte order; numbers may be of another dtype if its values fit.
        loc: what is named where the whole array is wrong.
        largest: bytes that it may have as the graph takes it.
        first: the number of its first row among the request's.

    Raises:
        InvalidInstance: another shape, another kind of numbers, or numbers out of the dtype's range.
        InputNotFinite: NaN or infinity, also by overflow of the dtype; names the first such row.
        PayloadTooLarge: it would be larger than it may be.
    """
    wanted = np.dtype(spec.dtype)
    if isinstance(spec, ImageInput) and spec.depth == 1 and array.shape[1:] == spec.size:
        array = array[..., None]
    rows.require_shape(name, array, ("rows", *spec.shape), loc)
    if array.dtype.kind not in KINDS[wanted.kind]:
        raise InvalidInstance(f"input {name!r}: wanted {spec.dtype} numbers, got {array.dtype}", loc)
    if array.size * wanted.itemsize > largest:
        raise PayloadTooLarge(
            f"input {name!r}: {array.size * wanted.itemsize} bytes for the model, allowed are {largest} a request: "
            "send fewer rows at a time",
            loc,
        )
    if wanted.kind in "iu":
        _require_range(name, wanted, array, first)
    with np.errstate(over="ignore", invalid="ignore"):
        column = np.require(array, wanted, ["C", "A"])
    _require_finite(name, column, first)
    return list(column) if isinstance(spec, TensorInput) and spec.free else column


def _require_range(name: str, wanted: np.dtype[Any], array: Array, first: int) -> None:
    limits, given = np.iinfo(wanted), np.iinfo(array.dtype)
    if given.min >= limits.min and given.max <= limits.max:
        return
    outside = (array < limits.min) | (array > limits.max)
    if outside.any():
        raise InvalidInstance(
            f"input {name!r}: values outside {limits.min} to {limits.max} of {wanted}",
            ("instances", first + _first_row(outside), name),
        )


def _require_finite(name: str, column: Array, first: int) -> None:
    if column.dtype.kind == "f" and not (finite := np.isfinite(column)).all():
        row = _first_row(~finite)
        count = int((~finite[row]).sum())
        raise InputNotFinite(
            f"input {name!r}: {count} of {finite[row].size} values are NaN or infinite",
            ("instances", first + row, name),
        )


def _first_row(marked: Array) -> int:
    return int(marked.reshape(len(marked), -1).any(axis=1).argmax())
