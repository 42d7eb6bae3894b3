"""The columns of an input: that those which are needed are there, and the same in every file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import pyarrow as pa

from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.sources.listing import Listing
from polyhead.serving.scoring.units import InputFile

__all__ = ["named", "require_columns", "require_same"]


def named(names: Iterable[str], wanted: str = "") -> str:
    """The columns that exist, for an error: the likeliest first, and not hundreds of them."""
    known = list(names)
    close = difflib.get_close_matches(wanted, known, 3) if wanted else []
    shown = [*close, *(name for name in known if name not in close)][:20]
    more = f", and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return (", ".join(name if name.isprintable() else repr(name) for name in shown) + more) or "none"


def require_columns(listing: Listing, file: InputFile, names: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse a file that lacks a column which is needed.

    Raises:
        JobRefused: naming the file and the column.
    """
    for name in needed:
        count = names.count(name)
        if count != 1:
            what = "lacks column" if not count else "has more than one column"
            raise JobRefused(
                f"{file.path}: {what} {name!r}, {listing.files[0].path} has it (columns here: {named(names, name)}): "
                "score files of other columns apart, or leave the column out with --columns"
            )


def require_same(listing: Listing, file: InputFile, schema: pa.Schema, needed: Sequence[str]) -> None:
    """Refuse a file whose columns, of those that are needed, are not those of the first file.

    Raises:
        JobRefused: naming the file and the column.
    """
    require_columns(listing, file, schema.names, needed)
    for name in needed:
        wanted, got = listing.schema.field(name).type, schema.field(name).type
        if wanted != got:
            raise JobRefused(
                f"{file.path}: column {name!r} is {got}, in {listing.files[0].path} it is {wanted}: "
                "write the files with one schema, or score them apart"
            )
