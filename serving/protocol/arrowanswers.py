"""Answers as an Arrow stream: a struct column per head, made of whole arrays.

What JSON repeats in every row stands once: labels in a dictionary, a unit in the field's metadata.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from polyhead.models.spec import OneShotHead, SegmentationHead, TokensHead
from polyhead.serving.golden import Array
from polyhead.serving.protocol.accept import ARROW
from polyhead.serving.request import HttpResponse, Options, Query

if TYPE_CHECKING:
    from polyhead.serving.answers import HeadAnswers

__all__ = ["encode", "table"]

WORD = pa.struct(
    {"label": pa.string(), "text": pa.string(), "start": pa.int32(), "end": pa.int32(), "score": pa.float32()}
)

# The fields of one head's struct: by name, the column and what the field's metadata say.
Fields = dict[str, tuple[pa.Array, Mapping[str, str] | None]]


def encode(query: Query, answers: Mapping[str, HeadAnswers], parts: Mapping[str, slice]) -> HttpResponse:
    """One record batch of all rows. See `Encode`."""
    batch = table({head: answers[head] for head in query.heads}, parts, query.options)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return HttpResponse(200, "OK", sink.getvalue().to_pybytes(), ARROW)


def table(answers: Mapping[str, HeadAnswers], parts: Mapping[str, slice], options: Options) -> pa.RecordBatch:
    """The answers to some rows, a struct column per head, in the order of the heads."""
    columns, fields = [], []
    for head, answer in answers.items():
        part = parts[head]
        made = KINDS[answer.spec.kind](answer, part, options)
        if options.raw:
            made["raw"] = (_raw(answer, part), None)
        inner = [pa.field(name, array.type, metadata=about) for name, (array, about) in made.items()]
        columns.append(pa.StructArray.from_arrays([array for array, _ in made.values()], fields=inner))
        fields.append(pa.field(head, columns[-1].type, metadata={"kind": answer.spec.kind}))
    return pa.record_batch(columns, schema=pa.schema(fields))


def _classification(answers: HeadAnswers, part: slice, options: Options) -> Fields:
    best, scores = answers.best[part], answers.scores[part]
    made: Fields = {
        "label": (_labels(best, answers.labels), None),
        "score": (pa.array(answers.best_scores[part]), None),
        "index": (pa.array(best.astype(np.int32)), None),
    }
    if options.scores:
        made["scores"] = (_fixed(scores), None)
    if options.top_k:
        made["top"] = (_top(answers, scores, -scores, options.top_k, {}), None)
    return made


def _multilabel(answers: HeadAnswers, part: slice, options: Options) -> Fields:
    chosen, scores = answers.chosen[part], answers.scores[part]
    flat = np.flatnonzero(chosen)  # a third of what `nonzero` takes
    index = flat % chosen.shape[1]
    offsets = np.concatenate(([0], np.cumsum(np.count_nonzero(chosen, axis=1)))).astype(np.int32)
    made: Fields = {
        "labels": (pa.ListArray.from_arrays(offsets, _labels(index, answers.labels)), None),
        "scores": (pa.ListArray.from_arrays(offsets, pa.array(scores.reshape(-1)[flat])), None),
    }
    if options.scores:
        made["all_scores"] = (_fixed(scores), None)
    return made


def _regression(answers: HeadAnswers, part: slice, _options: Options) -> Fields:
    numbers = answers.numbers[part].reshape(part.stop - part.start, -1)
    single = numbers.shape[1] == 1
    return {"value": (pa.array(numbers[:, 0]) if single else _fixed(numbers), {"unit": answers.unit})}


def _embedding(answers: HeadAnswers, part: slice, _options: Options) -> Fields:
    return {"vector": (_fixed(answers.numbers[part]), None)}


def _oneshot(answers: HeadAnswers, part: slice, options: Options) -> Fields:
    made: Fields = {name: (column, None) for name, column in _nearest(answers, part).items()}
    if options.scores:
        made["scores"] = (_fixed(answers.scores[part]), None)
    if options.top_k:
        distances = answers.distances[part]
        made["top"] = (_top(answers, answers.scores[part], distances, options.top_k, {"distance": distances}), None)
    return made


def _nearest(answers: HeadAnswers, part: slice) -> dict[str, pa.Array]:
    """The nearest class of each row, no label where it is too far, and nothing at all where no class is enrolled."""
    assert isinstance(answers.spec, OneShotHead)
    distances = answers.distances[part]
    if not answers.labels:
        count = len(distances)
        index, none = pa.nulls(count, pa.int32()), pa.nulls(count, pa.float32())
        return {"label": _labels(index, answers.labels), "score": none, "distance": none}
    rows, nearest = np.arange(len(distances)), distances.argmin(axis=1)
    near = distances[rows, nearest]
    limit = answers.spec.max_distance
    far = np.zeros(len(near), bool) if limit is None else ~(near <= limit)
    return {
        "label": _labels(pa.array(nearest.astype(np.int32), mask=far), answers.labels),
        "score": pa.array(answers.scores[part][rows, nearest]),
        "distance": pa.array(near),
    }


def _tokens(answers: HeadAnswers, part: slice, options: Options) -> Fields:
    rows = answers.rows(part, Options(scores=options.scores))
    made: Fields = {"entities": (pa.array([row["entities"] for row in rows], pa.list_(WORD)), None)}
    if options.scores:
        made["words"] = (pa.array([row["words"] for row in rows], pa.list_(WORD)), None)
    return made


def _segmentation(answers: HeadAnswers, part: slice, options: Options) -> Fields:
    rows = answers.rows(part, Options(mask=options.mask))
    place = {label: index for index, label in enumerate(answers.labels)}
    counts = [len(row["labels"]) for row in rows]
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    index = np.array([place[label] for row in rows for label in row["labels"]], np.int32)
    areas = pa.array(np.concatenate([row["areas"] for row in rows]))
    made: Fields = {
        "labels": (pa.ListArray.from_arrays(offsets, _labels(index, answers.labels)), None),
        "areas": (pa.ListArray.from_arrays(offsets, areas), None),
        "size": (_fixed(np.array([row["size"] for row in rows], np.int32)), None),
    }
    if options.mask == "png":
        made["png"] = (pa.array([base64.b64decode(row["png"]) for row in rows], pa.binary()), None)
    else:
        runs = [row["runs"] for row in rows]
        starts = np.concatenate(([0], np.cumsum([len(run) for run in runs]))).astype(np.int32)
        made["runs"] = (pa.ListArray.from_arrays(starts, _fixed(np.concatenate(runs).astype(np.int32))), None)
    return made


KINDS: dict[str, Callable[[HeadAnswers, slice, Options], Fields]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
    "embedding": _embedding,
    "oneshot": _oneshot,
    "tokens": _tokens,
    "segmentation": _segmentation,
}


def _labels(index: Any, labels: tuple[str, ...]) -> pa.Array:
    indices = index if isinstance(index, pa.Array) else pa.array(np.asarray(index, np.int32))
    return pa.DictionaryArray.from_arrays(indices, _dictionary(labels))


@lru_cache(maxsize=256)
def _dictionary(labels: tuple[str, ...]) -> pa.Array:
    return pa.array(labels, pa.string())


def _fixed(array: Array) -> pa.Array:
    """`[rows, a, b]` to fixed-size lists of b in lists of a, over one run of numbers."""
    column = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:]):
        column = _lists(column, len(column) // size if size else len(array), size)
    return column


def _lists(values: pa.Array, count: int, size: int) -> pa.Array:
    if size:
        return pa.FixedSizeListArray.from_arrays(values, size)
    return pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), values)  # of no class at all, before any is enrolled


def _top(answers: HeadAnswers, scores: Array, ranks: Array, count: int, more: Mapping[str, Array]) -> pa.Array:
    """The labels of least rank of each row, as JSON has them."""
    order = np.argsort(ranks, axis=1, kind="stable")[:, :count]
    flat = {
        "label": _labels(order.reshape(-1), answers.labels),
        "score": pa.array(np.take_along_axis(scores, order, axis=1).reshape(-1)),
        **{name: pa.array(np.take_along_axis(a, order, axis=1).reshape(-1)) for name, a in more.items()},
    }
    if not more:
        flat["index"] = pa.array(order.reshape(-1).astype(np.int32))
    return _lists(pa.StructArray.from_arrays(list(flat.values()), list(flat)), len(order), order.shape[1])


def _raw(answers: HeadAnswers, part: slice) -> pa.Array:
    """The graph's numbers. Those of tokens as long as each text; those of pixels flat, labels first, then `size`."""
    if isinstance(answers.spec, SegmentationHead):
        rows = [np.ravel(row) for row in answers.output[part]]
        offsets = np.concatenate(([0], np.cumsum([row.size for row in rows])))
        return pa.LargeListArray.from_arrays(offsets.astype(np.int64), pa.array(np.concatenate(rows)))
    if isinstance(answers.spec, TokensHead):
        lengths = [len(text.ids) for text in answers.texts[part]]
        rows = [row[:length] for row, length in zip(answers.numbers[part], lengths, strict=True)]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, _fixed(np.concatenate(rows)))
    numbers = answers.numbers[part]
    return _fixed(numbers) if numbers.ndim > 1 else pa.array(numbers)
