"""Protocol buffers in their text form, as Triton reads its `config.pbtxt`: names and values in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Field", "Value", "Word", "pbtxt"]

INDENT = "  "
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True)
class Word:
    """The name of an enumeration's value, which stands without quotes."""

    name: str


Field: TypeAlias = "tuple[str, Value]"
# Numbers in a tuple stand in brackets; a list is a message of further fields, of which each may come again.
Value: TypeAlias = "str | int | bool | Word | tuple[int, ...] | list[Field]"


def pbtxt(fields: Sequence[Field], indent: str = "") -> str:
    """Fields as text, one a line, messages indented."""
    lines = []
    for name, value in fields:
        if isinstance(value, list):
            lines.append(f"{indent}{name} {{\n{pbtxt(value, indent + INDENT)}{indent}}}\n")
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: str | int | bool | Word | tuple[int, ...]) -> str:
    match value:
        case str():
            return _quoted(value)
        case Word():
            return value.name
        case bool():
            return "true" if value else "false"
        case tuple():
            return f"[{', '.join(str(number) for number in value)}]"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    """A string literal, in single quotes where it holds double ones, so that JSON stays legible; UTF-8 as it is."""
    quote = "'" if '"' in text else '"'
    escapes = ESCAPES | {quote: f"\\{quote}"}
    return quote + "".join(escapes.get(c) or (f"\\{ord(c):03o}" if ord(c) < 32 else c) for c in text) + quote
