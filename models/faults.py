"""Pydantic's errors in one line for a person: the place in the data, what is wrong, what was got."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["first_fault"]


def first_fault(error: ValidationError, data: Any) -> str:
    """One line about a pydantic error: the first fault's place in the data, message and value, and how many more.

    Args:
        error: what validating `data` raised.
        data: plain lists and dicts. Pydantic's own path has union members in it, which the data tells apart.
    """
    faults = error.errors(include_url=False)
    places = [_place(fault["loc"], fault["type"], data) for fault in faults]
    # A value that fits no member of a union is reported once per member; the one that went deepest knows best.
    chosen = max(
        (index for index, place in enumerate(places) if place[: len(places[0])] == places[0]),
        key=lambda index: (len(places[index]), -index),
    )
    best = places[chosen]
    place = ".".join(part if part.isprintable() else repr(part) for part in best) or "the top level"
    more = len({tuple(p) for p in places if p[: len(best)] != best[: len(p)]})
    return f"{place}: {_fault_text(faults[chosen])}{f' (and {more} more)' if more > 0 else ''}"


def _place(loc: tuple[str | int, ...], kind: str, data: Any) -> list[str]:
    """The parts of a pydantic path that lead through the data."""
    place: list[str] = []
    for index, part in enumerate(loc):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):  # a member of a union, or the key that is missing
            if not (kind == "missing" and index == len(loc) - 1):
                continue
        place.append(str(part))
    return place


def _fault_text(fault: ErrorDetails) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return "is not a key that is known here: remove it, or check its spelling"
        case "missing":
            return "is missing"
        case "union_tag_not_found":
            return "kind is missing: say which kind this is"
        case "value_error":
            return fault["msg"].removeprefix("Value error, ")
        case kind:
            text = f"{fault['msg']}, got {fault['input']!r:.80}"
            unquoted = kind == "string_type" and isinstance(fault["input"], int | float | bool | datetime.date)
            return f"{text}: quote it" if unquoted else text
