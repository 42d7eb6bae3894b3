"""Rows written head by head are the bytes that the whole document would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polyhead.models.spec import ModelSpec
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.protocol.json import document
from polyhead.serving.protocol.rowjson import PlainRows, RowWriter
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import PLAIN

HEADS: dict[str, Any] = {
    "class": {"kind": "classification", "labels": ["a", 'quoted "b"', "über", "d\\n"]},
    "tags": {"kind": "multilabel", "labels": ["x", "y", "ζ"]},
    "one": {"kind": "regression", "unit": "°C"},
    "three": {"kind": "regression", "dim": 3},
    "vector": {"kind": "embedding", "dim": 2},
    "who": {"kind": "oneshot", "dim": 2},
}
SPEC = ModelSpec.parse({"name": "m", "version": "1", "inputs": {"x": {"kind": "tensor", "shape": [1]}}, "heads": HEADS})
WIDTHS = {"class": (4,), "tags": (3,), "one": (), "three": (3,), "vector": (2,), "who": (2,)}
PEOPLE = Prototypes.empty(2)
WRITERS = {name: RowWriter(name, head) for name, head in SPEC.heads.items()}


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rows = draw(st.integers(1, 5))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**60), max_value=2.0**60)
    return {name: draw(hnp.arrays(np.float32, (rows, *width), elements=finite)) for name, width in WIDTHS.items()}


def _answers(arrays: dict[str, np.ndarray]) -> dict[str, HeadAnswers]:
    return {name: HeadAnswers(SPEC.heads[name], array, (), PEOPLE) for name, array in arrays.items()}


def _objects(answers: dict[str, HeadAnswers], heads: tuple[str, ...], part: slice) -> list[dict[str, Any]]:
    columns = [answers[head].rows(part, PLAIN) for head in heads]
    return [dict(zip(heads, row, strict=True)) for row in zip(*columns, strict=True)]


@settings(max_examples=100, deadline=None)
@given(arrays=outputs(), data=st.data())
def test_the_bytes_are_those_of_the_whole_document(arrays: dict[str, np.ndarray], data: st.DataObject):
    total = len(arrays["one"])
    heads = tuple(data.draw(st.lists(st.sampled_from(list(HEADS)), min_size=1, unique=True)))
    start = data.draw(st.integers(0, total - 1))
    part = slice(start, data.draw(st.integers(start + 1, total)))
    answers = _answers(arrays)
    plain = PlainRows(answers, WRITERS, {}, total)
    assert plain.body(heads, part, single=False) == document(_objects(answers, heads, part), single=False)
    one = slice(start, start + 1)
    assert plain.body(heads, one, single=True) == document(_objects(answers, heads, one), single=True)


def test_a_head_that_ran_on_some_rows_is_written_at_their_places():
    arrays = {"one": np.arange(4, dtype=np.float32), "vector": np.array([[1, 2], [3, 4]], np.float32)}
    plain = PlainRows(_answers(arrays), WRITERS, {"vector": np.array([1, 3])}, 4)
    assert plain.body(("vector",), slice(1, 2), single=True) == b'{"vector":{"vector":[1.0,2.0]}}'
    both = plain.body(("one", "vector"), slice(3, 4), single=True)
    assert both == '{"one":{"value":3.0,"unit":"°C"},"vector":{"vector":[3.0,4.0]}}'.encode()
    assert plain.body(("one",), slice(0, 2), single=False).count(b'"one"') == 2


@pytest.mark.parametrize("rows", [1, 3])
def test_no_label_over_its_threshold_is_an_empty_list(rows: int):
    answers = HeadAnswers(SPEC.heads["tags"], np.full((rows, 3), -9, np.float32))
    assert WRITERS["tags"].rows(answers) == [b'"tags":{"labels":[],"scores":[]}'] * rows
