"""Cells of a CSV file to values of a type. What would come out as something else than was written is no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from polyhead.serving.scoring.sources.framing import bad_rows

__all__ = ["NULLS", "inferred", "numbers", "typed"]

# Of any type but strings, a cell that says there is no value.
NULLS = ("", "NA", "N/A", "null", "NULL")

WHOLE = r"-?(0|[1-9]\d*)"  # not 007, which is no number but a name made of digits
DATE = r"\d{4}-\d\d-\d\d"
MOMENT = DATE + r"[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?"
# By type, what its cells look like; the first type that all cells of a column fit is the column's.
PATTERNS: Mapping[pa.DataType, str] = {
    pa.int64(): WHOLE,
    # at most 15 digits of a whole number, which a float64 keeps
    pa.float64(): r"-?(0|[1-9]\d{0,14})|[+-]?(0|[1-9]\d*)?\.\d*([eE][+-]?\d+)?|[+-]?\d+[eE][+-]?\d+|(?i:nan|-?inf)",
    pa.bool_(): r"(?i:true|false)",
    pa.date32(): DATE,
    pa.timestamp("us"): MOMENT,
    pa.timestamp("us", "UTC"): MOMENT + "Z",
}
EXPONENT = r"^\d+[eE]\d+$"  # without a point or a sign as likely a name: 12e3
PRECISE = r"^[+-]?[0.]*[1-9](\.?\d){16,}\.?[1-9]"  # more than the 17 digits that tell any two float64 apart
NUMBER = {"f": pa.float64(), "i": pa.int64(), "u": pa.int64(), "b": pa.bool_()}


def inferred(cells: pa.Array) -> pa.DataType:
    """The type of a column, by its first cells, `binary [rows]`."""
    if bad_rows(cells, _is_text):
        return pa.string()
    texts = _without_nulls(cells.cast(pa.string())).drop_null()
    if not len(texts) or pc.any(pc.match_substring_regex(texts, EXPONENT)).as_py():
        return pa.string()
    return next((kind for kind in PATTERNS if not _unfit(texts, kind)), pa.string())


def typed(cells: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cells, `binary [rows]`, as values of a type; and the rows whose cells are none, null there."""
    bad = bad_rows(cells, _is_text)
    texts = _nulled(cells, bad).cast(pa.string())
    if types.is_string(kind):
        return texts, bad
    texts = _without_nulls(texts)
    unfit = _unfit(texts, kind)
    return _nulled(texts, unfit).cast(kind), sorted({*bad, *unfit})


def numbers(cells: pa.Array, kind: str, listed: bool) -> tuple[pa.Array, dict[int, str]]:
    """Cells of an input of numbers, `binary [rows]`, as its values; and by row, why a cell is none.

    Where a cell is a list, all values are texts, which hold lists and numbers as JSON: no Arrow type holds both, and
    only who knows the input's shape can say what a number among lists is. What a cell is, no other cell changes.

    Args:
        cells: each a number, or a JSON list of numbers.
        kind: of numbers: a dtype's character as numpy has it.
        listed: whether a cell may be a list.
    """
    bad = dict.fromkeys(bad_rows(cells, _is_text), "is not UTF-8")
    texts = pc.utf8_trim_whitespace(_nulled(cells, list(bad)).cast(pa.string()))
    wanted = NUMBER[kind]
    lists = pc.if_else(pc.starts_with(texts, "["), texts, None) if listed else pa.nulls(len(texts), pa.string())
    texts = pc.if_else(lists.is_valid(), None, texts)
    empty = pc.equal(texts, "").fill_null(False).to_numpy(zero_copy_only=False).nonzero()[0].tolist()
    texts = _nulled(texts, empty)
    unfit = bad_rows(texts, lambda part: _casts(part, wanted))
    bad |= dict.fromkeys(empty, "")
    bad |= {row: f"wanted {_word(wanted)}, got {texts[row].as_py()!r:.40}" for row in unfit}
    values = _nulled(texts, unfit).cast(wanted)
    if lists.null_count == len(lists):
        return values, bad
    broken = [row for row, text in enumerate(lists.to_pylist()) if text is not None and not _is_json(text)]
    bad |= {row: f"wanted {_word(wanted)}, or a JSON list of them, got {lists[row].as_py()!r:.40}" for row in broken}
    written = [None if value is None else str(value).lower() for value in values.to_pylist()]
    return pc.coalesce(_nulled(lists, broken), pa.array(written, pa.string())), bad


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _word(kind: pa.DataType) -> str:
    return "true or false" if types.is_boolean(kind) else "a whole number" if types.is_integer(kind) else "a number"


def _is_text(cells: pa.Array) -> bool:
    """Whether all cells are UTF-8."""
    try:
        cells.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _without_nulls(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_in(texts, pa.array(NULLS)), None, texts)


def _nulled(texts: pa.Array, rows: Sequence[int]) -> pa.Array:
    if not rows:
        return texts
    mask = [False] * len(texts)
    for row in rows:
        mask[row] = True
    return pc.if_else(pa.array(mask), None, texts)


def _unfit(texts: pa.Array, kind: pa.DataType) -> list[int]:
    """The rows whose cells are no values of a type."""
    fits = pc.match_substring_regex(texts, f"^(?:{PATTERNS[kind]})$")
    if types.is_floating(kind):
        fits = pc.and_not(fits, pc.match_substring_regex(texts, PRECISE))
    unlike = pc.invert(fits).fill_null(False).to_numpy(zero_copy_only=False).nonzero()[0].tolist()
    return sorted([*unlike, *bad_rows(_nulled(texts, unlike), lambda part: _casts(part, kind))])


def _casts(texts: pa.Array, kind: pa.DataType) -> bool:
    """Whether all are values of a type: its range too, and days that there are."""
    if types.is_integer(kind) and pc.any(pc.match_substring(texts, "x", ignore_case=True), min_count=0).as_py():
        return False  # Arrow takes 0x10 for 16
    try:
        texts.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
