"""What is not as it was when a job was begun, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["bundle_change", "files_changed", "schema_changes", "values_changed"]

MOST_FILES = 5
MOST_CHARACTERS = 80  # of a value; a person knows the rest


def files_changed(before: Sequence[Unit], after: Sequence[Unit]) -> list[str]:
    """Input files that are gone, new, or written again."""
    old, new = _files(before), _files(after)
    found = [f"{path} is gone" for path in old if path not in new]
    found += [f"{path} is new" for path in new if path not in old]
    for path, file in old.items():
        now = new.get(path)
        if now is not None and now.size != file.size:
            found.append(f"{path} has {now.size} bytes, had {file.size}")
        elif now is not None and now.version != file.version:
            found.append(f"{path} was written again (version {now.version}, was {file.version})")
    more = len(found) - MOST_FILES
    return [*found[:MOST_FILES], f"and {more} more input files changed"] if more > 0 else found


def bundle_change(old_title: str, old: str, new_title: str, new: str) -> list[str]:
    """Another bundle."""
    return [] if old == new else [f"the bundle is {new_title} ({new[:12]}), was {old_title} ({old[:12]})"]


def values_changed(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Values that differ, by name."""
    names = [*old, *(name for name in new if name not in old)]
    said = f"{kind} " if kind else ""
    return [
        f"{said}{name} is {_text(new.get(name))}, was {_text(old.get(name))}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def schema_changes(old: pa.Schema, new: pa.Schema) -> list[str]:
    """Columns of the output that are gone, new, or of another type."""
    if old.equals(new, check_metadata=True):
        return []
    found = [f"the output has no column {name!r} any more" for name in old.names if name not in new.names]
    found += [f"the output has a new column {name!r}" for name in new.names if name not in old.names]
    for name in old.names:
        if name in new.names and not old.field(name).equals(new.field(name), check_metadata=True):
            now, before = str(new.field(name).type), str(old.field(name).type)
            shown = f" ({now}, was {before})" if now != before and len(now) + len(before) <= MOST_CHARACTERS else ""
            found.append(f"the output's column {name!r} has another type{shown}")
    return found or ["the output's columns have another order, or say other things of themselves"]


def _files(units: Sequence[Unit]) -> dict[str, InputFile]:
    return {file.path: file for unit in units for file in unit.files}


def _text(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
