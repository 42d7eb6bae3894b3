"""What a job writes, declared before anything is scored: columns passed on, then a struct column per head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from pyarrow import types

from polyhead.models.arrays import text_arrays
from polyhead.models.spec import TokensHead
from polyhead.models.tokenizer import Encoding
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import RequestError
from polyhead.serving.golden import Golden
from polyhead.serving.protocol import arrowanswers
from polyhead.serving.request import Options, choose_heads
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.settings import ScoreSettings

__all__ = ["answers_table", "head_fields", "options_of", "output_schema", "wanted_heads"]


def wanted_heads(bundle: Bundle, settings: ScoreSettings) -> tuple[str, ...]:
    """The heads that a job asks for, in its order.

    Raises:
        JobRefused: one is not the model's.
    """
    try:
        return choose_heads(bundle.spec, None if settings.heads is None else list(settings.heads))
    except RequestError as error:
        raise JobRefused(error.message) from None


def options_of(settings: ScoreSettings) -> Options:
    """What is written besides each head's plain answer."""
    return Options(settings.top_k, settings.scores, settings.raw, settings.mask)


def output_schema(bundle: Bundle, settings: ScoreSettings, passed: pa.Schema) -> pa.Schema:
    """The schema of every part: the passed columns as they are, then the heads in the order wanted.

    A head's field holds its kind as metadata, a regression's value its unit. Nothing is loaded or run.

    Args:
        bundle: the model's; its golden samples' own outputs tell the types.
        settings: which heads, with which options.
        passed: columns of the input that go to the output.

    Raises:
        JobRefused: a head is not the model's, or a passed column has the name of one.
    """
    heads = wanted_heads(bundle, settings)
    for name in heads:
        if name in passed.names:
            raise JobRefused(f"column {name!r} and head {name!r} would both be {name!r}: leave one of them out")
    return pa.schema([*passed, *head_fields(bundle, heads, options_of(settings))])


def head_fields(bundle: Bundle, heads: tuple[str, ...], options: Options) -> list[pa.Field]:
    """The field of each head."""
    golden, prototypes, spec = bundle.golden(), bundle.prototypes(), bundle.spec
    answers = {}
    for name in heads:
        head = spec.heads[name]
        texts = [_tokens(golden, text_arrays(spec, spec.text_of(head)))] if isinstance(head, TokensHead) else []
        answers[name] = HeadAnswers(head, golden.outputs[name][:1], texts, prototypes.get(name))
    return list(answers_table(answers, 1, options).schema)


def answers_table(answers: Mapping[str, HeadAnswers], rows: int, options: Options) -> pa.RecordBatch:
    """The answers to a batch as columns of plain strings and numbers: Parquet makes its own dictionaries."""
    batch = arrowanswers.table(answers, dict.fromkeys(answers, slice(0, rows)), options)
    columns = [_plain(column, field) for column, field in zip(batch.columns, batch.schema, strict=True)]
    fields = [field.with_type(column.type) for column, field in zip(columns, batch.schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _tokens(golden: Golden, arrays: tuple[str, str]) -> Encoding:
    """The first golden text without its words, whose types are known."""
    ids, mask = (golden.inputs[name][0] for name in arrays)
    none = np.empty(0, np.int64)
    return Encoding("", ids[mask.astype(bool)], none, none.reshape(0, 2))


def _plain(column: pa.Array, field: pa.Field) -> pa.Array:
    """An array without dictionaries at any depth."""
    target = _plain_type(field.type)
    return column if target == column.type else _decoded(column, target)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if types.is_dictionary(kind):
        return kind.value_type
    if types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([field.with_type(_plain_type(field.type)) for field in fields])
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    return pa.list_(_plain_type(kind.value_type)) if types.is_list(kind) else kind


def _decoded(column: pa.Array, target: pa.DataType) -> pa.Array:
    """The same values. Nothing that is made of answers is null above its leaves, or a part of a larger array."""
    if types.is_dictionary(column.type):
        return column.dictionary.take(column.indices)  # a third of what a cast takes
    if types.is_struct(column.type):
        fields = [target.field(place) for place in range(target.num_fields)]
        inner = [
            column.field(place) if column.field(place).type == field.type else _decoded(column.field(place), field.type)
            for place, field in enumerate(fields)
        ]
        return pa.StructArray.from_arrays(inner, fields=fields)
    values = _decoded(column.values, target.value_type)
    if types.is_fixed_size_list(target):
        return pa.FixedSizeListArray.from_arrays(values, target.list_size)
    return pa.ListArray.from_arrays(column.offsets, values)
