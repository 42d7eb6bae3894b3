"""What a job reads: decided once by the driver, frozen, and handed to every worker."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import pyarrow as pa

__all__ = ["Format", "Reading"]

Format: TypeAlias = Literal["parquet", "csv", "jsonl", "arrow", "images"]


@dataclass(frozen=True, slots=True)
class Reading:
    """The columns of the input, and what they are for.

    Attributes:
        source: the address that the input was named by; it tells the file system.
        format: of every file.
        inputs: by input of the model, its column, or the columns that make one row of numbers.
        passed: columns that go to the output as they are, with the types they are declared with.
        filter: which rows are scored; all where None.
        max_row_bytes: of one row as the model takes it, and of one line of text.
        typed: of text files, the types of the columns that are passed on or filtered by.
        kinds: of text files, by input what its values are: `text`, `image`, or the dtype of its numbers.
    """

    source: str
    format: Format
    inputs: Mapping[str, tuple[str, ...]]
    passed: pa.Schema
    filter: str | None = None
    max_row_bytes: int = 64 * 1024 * 1024
    typed: pa.Schema = field(default_factory=lambda: pa.schema([]))
    kinds: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "source": self.source,
            "format": self.format,
            "inputs": {name: list(columns) for name, columns in self.inputs.items()},
            "passed": _written(self.passed),
            "filter": self.filter,
            "max_row_bytes": self.max_row_bytes,
            "typed": _written(self.typed),
            "kinds": dict(self.kinds),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Back from JSON."""
        inputs = {name: tuple(columns) for name, columns in plain["inputs"].items()}
        schemas = {name: _read(plain[name]) for name in ("passed", "typed")}
        return cls(**{**plain, "inputs": inputs, **schemas})


def _written(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _read(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
