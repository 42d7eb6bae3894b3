"""Which rows are scored: `country == 'NL' and score >= 3 and not (kind in ['a', 'b']) and text is not null`.

Python's grammar is borrowed and nothing of it is run. Null is SQL's: what is compared with null is neither true nor
false, and a row is scored where the whole is true.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from polyhead.serving.golden import Array
from polyhead.serving.scoring.errors import JobRefused

__all__ = ["Filter"]

Term: TypeAlias = "Callable[[pa.RecordBatch], Any]"

COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
WORDS = {"true": True, "false": False}
NULLS = ("null", "None")
GRAMMAR = (
    "compare columns (==, !=, <, <=, >, >=, in [...], is null, is not null) with numbers, 'strings', true, false, "
    "and join with and, or, not; a column of an odd name is column('odd name')"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a row.

    Attributes:
        text: as it was written.
        columns: that it needs, in the order they are named.
        term: a batch to a boolean of each row, or to one for all.
    """

    text: str
    columns: tuple[str, ...]
    term: Term

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition.

        Raises:
            JobRefused: it is none, saying where.
        """
        try:
            tree = ast.parse(text.strip(), mode="eval")
            reader = _Reader(text)
            term = reader.condition(tree.body)
        except SyntaxError as error:
            raise JobRefused(f"filter {text!r}: {error.msg} at character {error.offset}: {GRAMMAR}") from None
        except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nested too deep
            raise JobRefused(f"filter {text!r:.80}: {error}: {GRAMMAR}") from None
        if not reader.columns:
            raise JobRefused(f"filter {text!r}: names no column: {GRAMMAR}")
        return cls(text, tuple(dict.fromkeys(reader.columns)), term)

    def mask(self, batch: pa.RecordBatch) -> Array:
        """Which rows of a batch are scored: `bool [rows]`.

        Raises:
            JobRefused: the columns are not of types that can be compared so.
        """
        try:
            found = self.term(batch)
            if not types.is_boolean(found.type):
                raise JobRefused(f"filter {self.text!r}: is {found.type}, neither true nor false: {GRAMMAR}")
        except (pa.ArrowException, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise JobRefused(f"filter {self.text!r}: {reason}: compare each column with values of its type") from None
        return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)

    def require(self, schema: pa.Schema) -> None:
        """Refuse a table that it cannot be asked of.

        Raises:
            JobRefused: a column is missing, or of another type.
        """
        for name in self.columns:
            if name not in schema.names:
                known = ", ".join(schema.names) or "none"
                raise JobRefused(f"filter {self.text!r}: no column {name!r} in the input (columns: {known})")
        self.mask(pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema))


class _Reader:
    """Reads one tree of Python's grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: list[str] = []

    def condition(self, node: ast.expr) -> Term:
        """What is true or false."""
        if isinstance(node, ast.BoolOp):
            join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return _joined(join, [self.condition(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            return lambda batch: pc.invert(inner(batch))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [
                self._comparison(left, operator, right)
                for left, operator, right in zip(sides, node.ops, sides[1:], strict=False)
            ]
            return _joined(pc.and_kleene, parts)
        if self._is_column(node):
            return self._column(node)
        raise self._refusal(node)

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Term:
        if isinstance(operator, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Name | ast.Constant) and ast.unparse(right) in NULLS):
                raise self._refusal(right, "wanted `is null` or `is not null`")
            column, check = self._column(left), pc.is_null if isinstance(operator, ast.Is) else pc.is_valid
            return lambda batch: check(column(batch))
        if isinstance(operator, ast.In | ast.NotIn):
            member = self._membership(left, right)
            return member if isinstance(operator, ast.In) else lambda batch: pc.invert(member(batch))
        if not (self._is_column(left) or self._is_column(right)):
            raise self._refusal(left, "no column is compared")
        if self._is_column(left) and self._is_column(right):
            a, b = self._column(left), self._column(right)
            return lambda batch: COMPARISONS[type(operator)](a(batch), b(batch))
        return self._with_value(left, operator, right)

    def _with_value(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Term:
        compare, first = COMPARISONS[type(operator)], self._is_column(left)
        column, value = self._column(left if first else right), self._value(right if first else left)

        def term(batch: pa.RecordBatch) -> Any:
            array = _plain(column(batch))
            other = _scalar(value, array.type)
            if isinstance(value, float) and types.is_integer(array.type):
                array = array.cast(pa.float64(), safe=False)  # beyond 2**53 to the nearest, as SQL does
            return compare(array, other) if first else compare(other, array)

        return term

    def _membership(self, left: ast.expr, right: ast.expr) -> Term:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
            raise self._refusal(right, "wanted a list of values, as in kind in ['a', 'b']")
        column, values = self._column(left), [self._value(value) for value in right.elts]

        def term(batch: pa.RecordBatch) -> Any:
            array = _plain(column(batch))
            found = [pc.equal(array, _scalar(value, array.type)) for value in values]
            return functools.reduce(pc.or_kleene, found)

        return term

    def _is_column(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute):
            return self._is_column(node.value)
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and node.func.id == "column"
        return isinstance(node, ast.Name) and node.id not in (*WORDS, *NULLS)

    def _column(self, node: ast.expr) -> Term:
        if isinstance(node, ast.Attribute):
            inner, field = self._column(node.value), node.attr
            return lambda batch: pc.struct_field(inner(batch), field)
        if isinstance(node, ast.Call) and self._is_column(node):
            arguments = [value.value for value in node.args if isinstance(value, ast.Constant)]
            if len(node.args) != 1 or node.keywords or not arguments or not isinstance(arguments[0], str):
                raise self._refusal(node, "wanted column('name')")
            name = arguments[0]
        elif isinstance(node, ast.Name) and self._is_column(node):
            name = node.id
        else:
            raise self._refusal(node, "wanted a column")
        self.columns.append(name)
        return lambda batch: batch.column(name)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            return node.value
        if isinstance(node, ast.Name) and node.id in WORDS:
            return WORDS[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = node.operand.value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value
        raise self._refusal(node, "wanted a number, a 'string', true or false; null is asked for with `is null`")

    def _refusal(self, node: ast.expr, wanted: str = "") -> JobRefused:
        return JobRefused(f"filter {self.text!r}: {ast.unparse(node)!r:.80}: {wanted or 'no condition'}: {GRAMMAR}")


def _joined(join: Callable[[Any, Any], Any], terms: Sequence[Term]) -> Term:
    return lambda batch: functools.reduce(join, [term(batch) for term in terms])


def _plain(array: Any) -> Any:
    return array.dictionary_decode() if types.is_dictionary(array.type) else array


def _scalar(value: Any, kind: pa.DataType) -> Any:
    """A value to compare a column with: a date or a time is written as a string."""
    text = any(is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_string_view))
    if isinstance(value, str) != text and not (isinstance(value, str) and types.is_temporal(kind)):
        raise TypeError(f"a column of {kind} is compared with {value!r}")
    if isinstance(value, bool) != types.is_boolean(kind):
        raise TypeError(f"a column of {kind} is compared with {value!r}")
    return pa.scalar(value, kind) if text else (pa.scalar(value).cast(kind) if isinstance(value, str) else value)
