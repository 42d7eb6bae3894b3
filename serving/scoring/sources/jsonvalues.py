"""Values of a JSON Lines file that are passed on: to a type, and to nothing else than was written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import types

__all__ = ["MIXED", "inferred", "typed", "written"]

MIXED = b"several types"  # a field's metadata says so where no type holds all values
UNSEEN = b"no values"  # so it says where the first rows have none, which tells no type

# By type, what its values may be; a whole number is a number.
PLAIN: Mapping[pa.DataType, frozenset[type]] = {
    pa.int64(): frozenset([int, type(None)]),
    pa.float64(): frozenset([int, float, type(None)]),
    pa.string(): frozenset([str, type(None)]),
    pa.bool_(): frozenset([bool, type(None)]),
}
FAILURES = (pa.ArrowException, ValueError, TypeError, OverflowError)


def inferred(name: str, values: Sequence[Any]) -> pa.Field:
    """A column by its first values; where there are none, or they are of several types, that is noted."""
    if all(value is None for value in values):
        return pa.field(name, pa.string(), metadata={UNSEEN: b"what is no string is written as JSON"})
    try:
        kind = _without_nulls(pa.array(values).type)
        bad = typed(values, kind)[1]
    except FAILURES as error:
        kind, bad = pa.string(), {0: " ".join(str(error).split())[:100]}
    if not bad:
        return pa.field(name, kind)
    return pa.field(name, pa.string(), metadata={MIXED: f"row {next(iter(bad)) + 1}: {next(iter(bad.values()))}"})


def written(values: Sequence[Any], field: pa.Field) -> Sequence[Any]:
    """Values of a column; of one whose first rows had none, what is no string as its JSON: any type may come."""
    if UNSEEN not in (field.metadata or {}):
        return values
    return [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
    ]


def typed(values: Sequence[Any], kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """A column of a type; and by row, the values that are none of it, null there."""
    column = _converted(values, kind)
    if column is not None:
        return column, {}
    bad = {row: _shown(value) for row, value in enumerate(values) if _converted([value], kind) is None}
    kept = [None if row in bad else value for row, value in enumerate(values)]
    return pa.array(kept, kind), bad


def _converted(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """A column, unless a value would not be what it was."""
    if kind in PLAIN and not set(map(type, values)) <= PLAIN[kind]:
        return None
    try:
        column = pa.array(values, kind)
    except FAILURES:
        return None
    if kind not in PLAIN and not _same(column.to_pylist(), list(values)):
        return None
    return column


def _same(got: Any, wanted: Any) -> bool:
    """Whether two values are one, keys without a value left out."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        return all(_same(got.get(key), wanted.get(key)) for key in got.keys() | wanted.keys())
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    if isinstance(got, float) and isinstance(wanted, float) and math.isnan(got):
        return math.isnan(wanted)
    return bool(got == wanted) and isinstance(got, bool) == isinstance(wanted, bool)


def _without_nulls(kind: pa.DataType) -> pa.DataType:
    """The type, strings for what only nulls were seen of."""
    if types.is_null(kind):
        return pa.string()
    if types.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type))
    if types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return pa.struct([(field.name, _without_nulls(field.type)) for field in fields])
    return kind


def _shown(value: Any) -> str:
    try:
        return f"{orjson.dumps(value).decode():.60}"
    except (orjson.JSONEncodeError, UnicodeError):
        return f"{value!r:.60}"
