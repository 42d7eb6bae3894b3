"""An input's address to a source: its files found, its columns chosen, once, by the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.filesystems import resolve
from polyhead.serving.scoring.reading import Format, Reading
from polyhead.serving.scoring.sources.arrow import ArrowSource, arrow_schema
from polyhead.serving.scoring.sources.base import Source
from polyhead.serving.scoring.sources.choosing import choose_reading
from polyhead.serving.scoring.sources.delimited import CsvSource, csv_rows, csv_schema
from polyhead.serving.scoring.sources.files import Files
from polyhead.serving.scoring.sources.framing import Framing
from polyhead.serving.scoring.sources.images import ImagesSource, images_schema
from polyhead.serving.scoring.sources.jsonlines import JsonLinesSource, json_rows, json_schema
from polyhead.serving.scoring.sources.listing import SUFFIXES, Listing, address_of, format_of, found
from polyhead.serving.scoring.sources.parquet import ParquetSource, parquet_schema
from polyhead.serving.scoring.units import InputFile

__all__ = ["choose_reading", "open_input", "source_of"]

SCHEMAS: Mapping[Format, Callable[[Files, InputFile], pa.Schema]] = {
    "parquet": parquet_schema,
    "csv": csv_schema,
    "jsonl": json_schema,
    "arrow": arrow_schema,
}
SOURCES: Mapping[Format, Callable[[Files, Framing, Listing | None], Source]] = {
    "parquet": ParquetSource,
    "csv": CsvSource,
    "jsonl": JsonLinesSource,
    "arrow": ArrowSource,
    "images": ImagesSource,
}
# Of text, how many rows tell the columns: a file without rows has none, or has them without their types.
ROWS: Mapping[Format, Callable[[Files, InputFile], int]] = {"csv": csv_rows, "jsonl": json_rows}


def open_input(source: str | Path | Sequence[str | Path], format: Format | None = None) -> Listing:  # noqa: A002
    """The files and columns of an input.

    Args:
        source: a file, a folder, a pattern, or several of them on one file system. In folders, names that begin with
            `.` or `_` are passed over.
        format: of every file; by their names where None.

    Raises:
        JobRefused: no files, or files of several formats.
        InputUnreadable: a file is not of its format.
    """
    address, filesystem, infos = found(source)
    kind = format or format_of(infos, address)
    if kind == "images":
        infos = [info for info in infos if info.path.lower().endswith(SUFFIXES["images"])]
        if not infos:
            raise JobRefused(f"{address}: no images there ({', '.join(SUFFIXES['images'])})")
    known = Files(filesystem, many=kind == "images")
    files = tuple(known.planned(address, lambda: known.described(infos)))
    first = next((file for file in files if file.size), files[0])
    filled: InputFile | None = first
    if kind in ROWS:
        filled = next((file for file in files if file.size and ROWS[kind](known, file)), None)
    schema = images_schema() if kind == "images" else SCHEMAS[kind](known, filled or first)
    return Listing(address, filesystem, files, kind, schema, known=filled is not None or bool(schema.names))


def source_of(reading: Reading, listing: Listing | None = None) -> Source:
    """The source of a job; with the listing where it plans."""
    filesystem = listing.filesystem if listing is not None else resolve(address_of(reading.source))[0]
    files = Files(filesystem, many=reading.format == "images")
    return SOURCES[reading.format](files, Framing(reading), listing)
