"""A Parquet file of one unit: row groups of about a window, the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

__all__ = ["PREFIX", "PartWriter"]

PREFIX = "polyhead."  # of what Polyhead says in a file's footer
GROUP_ROWS, GROUP_BYTES = 16_384, 64 * 1024 * 1024
CODEC = "zstd"


class PartWriter:
    """Writes tables of one schema, one after the other; a context, which lets go of a file that was not closed.

    Args:
        sink: a file open for writing.
        schema: of every table.

    Attributes:
        rows: written so far.
    """

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        texts = [".".join(path) for field in schema for path in _texts(field)]  # numbers seldom repeat
        self._writer = pq.ParquetWriter(sink, schema, compression=CODEC, use_dictionary=texts or False)
        self._held: list[pa.Table] = []
        self._held_rows = self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._writer.is_open = False  # else it would try to write a footer when it is collected

    def write(self, table: pa.Table) -> None:
        """Add rows; they are on their way when a row group of them is full."""
        self._held.append(table)
        self._held_rows += table.num_rows
        self._held_bytes += table.nbytes
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()

    def close(self, footer: Mapping[str, str]) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.add_key_value_metadata({PREFIX + name: value for name, value in footer.items()})
        self._writer.close()

    def _flush(self) -> None:
        if self._held_rows:
            self._writer.write_table(pa.concat_tables(self._held), row_group_size=self._held_rows)
        self.rows += self._held_rows
        self._held, self._held_rows, self._held_bytes = [], 0, 0


def _texts(field: pa.Field) -> Iterator[tuple[str, ...]]:
    """The paths of a field's columns of texts and bytes, as Parquet names them."""
    kind = field.type
    if types.is_struct(kind):
        for place in range(kind.num_fields):
            yield from ((field.name, *rest) for rest in _texts(kind.field(place)))
    elif types.is_map(kind):
        for inner in (kind.key_field, kind.item_field):
            yield from ((field.name, "key_value", *rest) for rest in _texts(inner))
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        element = kind.value_field.with_name("element")
        yield from ((field.name, "list", *rest) for rest in _texts(element))
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_dictionary(kind):
        yield (field.name,)
