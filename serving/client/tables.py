"""Answers that came as an Arrow stream, a struct column per head: what JSON would spell out in every row."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from polyhead.serving.client.answers import (
    Answer,
    Classification,
    Embedding,
    Entity,
    Multilabel,
    OneShot,
    Regression,
    Row,
    Segmentation,
    Tokens,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ARROW", "readable", "rows_of"]

ARROW = "application/vnd.apache.arrow.stream"
KINDS: dict[str, type[Any]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
    "oneshot": OneShot,
    "segmentation": Segmentation,
}


def readable() -> bool:
    """Whether pyarrow is installed; without it answers come as JSON."""
    return importlib.util.find_spec("pyarrow") is not None


def rows_of(content: bytes) -> list[Row]:
    """The rows of a stream, each with its answers by head.

    Raises:
        ValueError: it is no such stream, or of a kind that is not known here.
    """
    import pyarrow as pa  # here: the client is of use without it

    rows: list[Row] = []
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:  # its errors are ValueErrors
        heads = [(field.name, *_about(field)) for field in reader.schema]
        for batch in reader:
            columns = [list(_answers(batch.column(name), kind, unit)) for name, kind, unit in heads]
            names = [name for name, _, _ in heads]
            rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def _about(field: pa.Field) -> tuple[str, str]:
    """A head's kind and unit."""
    unit = ""
    if "value" in (names := [inner.name for inner in field.type]):
        unit = ((field.type.field(names.index("value")).metadata or {}).get(b"unit", b"")).decode()
    return ((field.metadata or {}).get(b"kind", b"")).decode(), unit


def _answers(column: pa.StructArray, kind: str, unit: str) -> Iterator[Answer]:
    """One head's answers, one a row."""
    if kind == "embedding":
        vectors = column.field("vector")
        numbers = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        yield from map(Embedding, numbers.reshape(len(vectors), -1))
        return
    if kind == "tokens":
        for entities in column.field("entities").to_pylist():
            yield Tokens([Entity(**entity) for entity in entities])
        return
    made = KINDS.get(kind)
    if made is None:
        raise ValueError(f"an answer of the kind {kind!r}, which this client does not know")
    names = [field.name for field in column.type]
    more = {"unit": unit} if kind == "regression" else {}
    for row in zip(*(_listed(column.field(name)) for name in names), strict=True):
        yield made(**dict(zip(names, row, strict=True)), **more)


def _listed(values: pa.Array) -> list[Any]:
    """A column as Python has it. pyarrow's own way, by a scalar each, takes ten times as long."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        words = values.dictionary.to_pylist()
        return [None if index is None else words[index] for index in _listed(values.indices)]
    if values.null_count or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        listed: list[Any] = values.to_pylist()
        return listed
    numbers: list[Any] = values.to_numpy().tolist()
    return numbers
