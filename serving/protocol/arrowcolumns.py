"""Columns of an Arrow record batch: numbers to arrays over the same memory, strings and bytes to lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from polyhead.serving.errors import InvalidInstance, PayloadTooLarge
from polyhead.serving.golden import Array

__all__ = ["BYTES", "TEXTS", "Kinds", "arrays", "holds", "objects"]

Kinds = tuple[Callable[[pa.DataType], bool], ...]
TEXTS: Kinds = (types.is_string, types.is_large_string, types.is_string_view)
BYTES: Kinds = (types.is_binary, types.is_large_binary, types.is_binary_view)
LISTS: Kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
NUMBERS: Kinds = (types.is_integer, types.is_floating, types.is_boolean)


def holds(kind: pa.DataType, kinds: Kinds) -> bool:
    """Whether a column, or the dictionary of one, is of one of these kinds."""
    values = kind.value_type if types.is_dictionary(kind) else kind
    return any(is_kind(values) for is_kind in kinds)


def objects(name: str, column: pa.Array, kinds: Kinds, wanted: str, first: int, room: int) -> list[Any]:
    """The strings, or bytes, of each row.

    Args:
        name: of the input.
        column: plain, or encoded by a dictionary, which may say one long text ten thousand times.
        kinds: that it may be of; `wanted` in words.
        first: the number of its first row.
        room: characters or bytes that all of them may have.

    Raises:
        InvalidInstance: of another kind, or a null.
        PayloadTooLarge: more than there is room for.
    """
    if not holds(column.type, kinds):
        raise InvalidInstance(f"input {name!r}: a column of {column.type!s:.80}, wanted {wanted}", ("inputs", name))
    _require_values(name, column, [], first)
    index = None
    if types.is_dictionary(column.type):
        index, column = column.indices.to_numpy(), column.dictionary
    lengths = _lengths(column)
    size = max(int(lengths.sum()), 0 if index is None else int(lengths[index].sum()))
    if size > room:
        raise PayloadTooLarge(
            f"input {name!r}: {size} bytes or more, there is room for {room}: send fewer rows at a time",
            ("inputs", name),
        )
    values: list[Any] = column.to_pylist()
    if index is None:
        return values
    found = [values[i] for i in index.tolist()]
    if None in found:
        raise _null(name, first + found.index(None))
    return found


def arrays(name: str, column: pa.Array, first: int) -> Iterator[Array]:
    """The numbers of a column: one array `[rows, …]` where all rows have one shape, else one `[1, …]` for each row.

    Lists in lists are further dimensions. So is the shape of Arrow's own fixed-shape tensors.

    Args:
        name: of the input.
        column: of numbers, in lists or not.
        first: the number of its first row.

    Raises:
        InvalidInstance: no numbers, a null among them, or lists of uneven lengths within a row.
    """
    count, shape = len(column), None
    if isinstance(column.type, pa.FixedShapeTensorType):
        shape, permutation = column.type.shape, column.type.permutation
        if permutation is not None and list(permutation) != sorted(permutation):
            raise InvalidInstance(f"input {name!r}: a tensor of permuted dimensions: write it in C order")
        column = column.storage
    levels: list[Array] = []
    while any(is_kind(column.type) for is_kind in LISTS):
        _require_values(name, column, levels, first)
        levels.append(_offsets(column))
        column = column.flatten()
    _require_values(name, column, levels, first)
    if not any(is_kind(column.type) for is_kind in NUMBERS):
        raise InvalidInstance(
            f"input {name!r}: a column of {column.type!s:.80}, wanted numbers, or lists of them", ("inputs", name)
        )
    numbers: Array = column.to_numpy(zero_copy_only=False)
    sizes = [_only(np.diff(offsets)) for offsets in levels]
    if None not in sizes:
        yield numbers.reshape(count, *(sizes if shape is None else shape))
        return
    for row in range(count):
        yield _row(name, numbers, levels, row, first)


def _row(name: str, numbers: Array, levels: Sequence[Array], row: int, first: int) -> Array:
    start, stop = row, row + 1
    shape = []
    for offsets in levels:
        part = offsets[start : stop + 1]
        length = _only(np.diff(part)) if stop > start else 0
        if length is None:
            raise InvalidInstance(
                f"input {name!r}: lists of different lengths within a row", ("instances", first + row, name)
            )
        shape.append(length)
        start, stop = int(part[0]), int(part[-1])
    found: Array = numbers[start:stop].reshape(1, *shape)
    return found


def _offsets(column: pa.Array) -> Array:
    if types.is_fixed_size_list(column.type):
        offsets: Array = np.arange(len(column) + 1, dtype=np.int64) * int(column.type.list_size)
        return offsets
    offsets = column.offsets.to_numpy().astype(np.int64)
    return np.asarray(offsets - offsets[0])


def _only(lengths: Array) -> int | None:
    """The one length that all have."""
    return int(lengths[0]) if len(lengths) and (lengths == lengths[0]).all() else None


def _require_values(name: str, column: pa.Array, levels: Sequence[Array], first: int) -> None:
    """Refuse a null at any depth; the lists around it tell its row."""
    if column.null_count:
        place = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        for offsets in reversed(levels):
            place = int(np.searchsorted(offsets, place, side="right")) - 1
        raise _null(name, first + place)


def _null(name: str, row: int) -> InvalidInstance:
    return InvalidInstance(f"input {name!r}: a null, wanted a value in every row", ("instances", row, name))


def _lengths(column: pa.Array) -> Array:
    """Bytes of each string or binary."""
    if types.is_string_view(column.type) or types.is_binary_view(column.type):  # which `binary_length` does not know
        views = np.frombuffer(column.buffers()[1], np.int32)[4 * column.offset :: 4]  # 16 bytes each, the length first
        return views[: len(column)].astype(np.int64)
    return np.asarray(pc.fill_null(pc.binary_length(column), 0), np.int64)
