"""Columns in the encodings and layouts that all of Arrow's functions, and Parquet, know."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

__all__ = ["settle", "settled"]


def settled(kind: pa.DataType) -> pa.DataType:
    """The type of a column without a dictionary, runs or views."""
    if types.is_dictionary(kind):
        return settled(kind.value_type)
    if isinstance(kind, pa.RunEndEncodedType):
        return settled(kind.value_type)
    if types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if types.is_binary_view(kind) else kind


def settle(column: pa.Array) -> pa.Array:
    """The same values of the settled type; most columns are settled as they are."""
    if types.is_dictionary(column.type):
        return settle(column.dictionary_decode())
    if isinstance(column.type, pa.RunEndEncodedType):
        return settle(pc.run_end_decode(column))
    if types.is_string_view(column.type):
        return column.cast(pa.large_binary()).view(pa.large_string())  # unproven: a row that is not UTF-8 fails alone
    return column.cast(pa.large_binary()) if types.is_binary_view(column.type) else column
