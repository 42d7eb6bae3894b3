"""Cells of a column as the protocol's readers take them: texts that are UTF-8, numbers that were written as texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from polyhead.serving.errors import InvalidInstance, MalformedBody, RequestError
from polyhead.serving.golden import Array
from polyhead.serving.protocol.arrowcolumns import BYTES, TEXTS, holds
from polyhead.serving.scoring.chunks import Column

__all__ = ["null", "numbers_in_texts", "plain", "taken", "texts"]


def plain(column: pa.Array) -> pa.Array:
    """A column without the encodings and types that only a table has: dictionaries, runs, decimals."""
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    elif isinstance(column.type, pa.RunEndEncodedType):
        column = pc.run_end_decode(column)
    return column.cast(pa.float64()) if types.is_decimal(column.type) else column


def taken(column: Column, places: Array) -> Column:
    """Some rows of a column."""
    if not isinstance(column, pa.Array):
        return [column[place] for place in places.tolist()]
    if types.is_string_view(column.type) or types.is_binary_view(column.type):  # which Arrow cannot take from
        column = column.cast(pa.large_string() if types.is_string_view(column.type) else pa.large_binary())
    return column.take(pa.array(places))


def texts(name: str, column: pa.Array) -> tuple[list[str], dict[int, RequestError]]:
    """The text of each row, empty where it has none; and which have none, and why.

    Args:
        name: of the input.
        column: of strings, or of the bytes that a file of text holds.
    """
    if not holds(column.type, (*TEXTS, *BYTES)):
        wrong: RequestError = InvalidInstance(f"input {name!r}: a column of {column.type!s:.80}, wanted strings")
        return [""] * len(column), dict.fromkeys(range(len(column)), wrong)
    try:
        values = (column.cast(pa.large_string()) if holds(column.type, BYTES) else column).to_pylist()
    except (UnicodeDecodeError, pa.ArrowInvalid):  # find out whose
        values = column.cast(pa.large_binary()).to_pylist()
    found: list[str] = []
    errors: dict[int, RequestError] = {}
    for row, value in enumerate(values):
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                errors[row] = MalformedBody(
                    f"input {name!r}: not UTF-8 (byte {error.start}), wanted text: write the file in UTF-8"
                )
                value = ""
        elif value is None:
            errors[row] = null(name)
            value = ""
        found.append(value)
    return found, errors


def null(name: str) -> InvalidInstance:
    """What is said of a row that has no value."""
    return InvalidInstance(f"input {name!r}: a null, wanted a value in every row")


def numbers_in_texts(name: str, column: pa.Array) -> Sequence[Any] | None:
    """What texts hold, as JSON has it: `3.5`, `true`, or lists such as `[1, 2]`; None where these are no texts.

    Args:
        name: of the input.
        column: a text a row, or a list of texts a row.

    Raises:
        InvalidInstance: a text that is no number.
    """
    leaf = column.type
    while types.is_list(leaf) or types.is_large_list(leaf) or types.is_fixed_size_list(leaf):
        leaf = leaf.value_type
    if not holds(leaf, (*TEXTS, *BYTES)):
        return None
    return [_number(name, value) for value in column.to_pylist()]


def _parsed(data: bytes) -> int | float:
    try:
        return int(data)  # of integers, those beyond 2^53 would not survive being a float
    except ValueError:
        return float(data)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_number(name, item) for item in value]
    if value is None:
        raise null(name)
    data = value.encode() if isinstance(value, str) else value
    try:
        if data.lstrip()[:1] == b"[" or data in (b"true", b"false"):
            return orjson.loads(data)
        if b"_" in data:  # which Python takes for a mark between digits
            raise ValueError
        return _parsed(data)
    except ValueError:
        raise InvalidInstance(
            f"input {name!r}: wanted a number or a JSON list of numbers, got {data[:40].decode(errors='replace')!r}"
        ) from None
