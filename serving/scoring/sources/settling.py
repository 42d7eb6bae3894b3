"""Columns in the encodings and layouts that all of Arrow's functions, and Parquet, know."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

__all__ = ["settle", "settled"]


def settled(kind: pa.DataType) -> pa.DataType:
    """The type of a column without a dictionary, runs or views, of units that Parquet has; at any depth."""
    if types.is_dictionary(kind):
        return settled(kind.value_type)
    if isinstance(kind, pa.RunEndEncodedType):
        return settled(kind.value_type)
    if types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([field.with_type(settled(field.type)) for field in fields])
    if types.is_list(kind):
        return pa.list_(_settled_field(kind.value_field))
    if types.is_large_list(kind):
        return pa.large_list(_settled_field(kind.value_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(_settled_field(kind.value_field), kind.list_size)
    return _settled_leaf(kind)


def _settled_field(field: pa.Field) -> pa.Field:
    return field.with_type(settled(field.type))


def _settled_leaf(kind: pa.DataType) -> pa.DataType:
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if types.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    return pa.date32() if types.is_date64(kind) else kind


def settle(column: pa.Array) -> pa.Array:
    """The same values of the settled type; most columns are settled as they are."""
    if types.is_dictionary(column.type):
        return settle(column.dictionary_decode())
    if isinstance(column.type, pa.RunEndEncodedType):
        return settle(pc.run_end_decode(column))
    if types.is_string_view(column.type):
        return column.cast(pa.large_binary()).view(pa.large_string())  # unproven: a row that is not UTF-8 fails alone
    wanted = settled(column.type)
    return column if wanted == column.type else column.cast(wanted)
