"""Answers by Arrow and by JSON are the same objects to a caller, for every kind of head."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import orjson
import pytest

from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.client.answers import OneShot, Segmentation, answer_of
from polyhead.serving.client.tables import rows_of
from polyhead.serving.protocol import arrowanswers, json
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import Options, Query

HEADS = {
    "color": {"kind": "classification", "labels": ["red", "green", "blue"]},
    "tags": {"kind": "multilabel", "labels": ["wet", "hot"]},
    "level": {"kind": "regression", "unit": "°C"},
    "place": {"kind": "regression", "dim": 2},
    "vector": {"kind": "embedding", "dim": 3},
    "slots": {"kind": "tokens", "labels": ["O", "B-room"]},
    "ground": {"kind": "segmentation", "labels": ["grass", "road"]},
    "who": {"kind": "oneshot", "dim": 2, "max_distance": 1.0},
    "nobody": {"kind": "oneshot", "dim": 2},
}
ROWS = 4


@pytest.fixture(scope="module")
def answers() -> dict[str, HeadAnswers]:
    generator = np.random.default_rng(3)
    inputs = {
        "text": {"kind": "text", "tokenizer": "t.json", "max_length": 9},
        "image": {"kind": "image", "size": [3, 4]},
    }
    spec = ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": HEADS})
    spans = np.array([[0, 3], [4, 7]])
    texts = [Encoding("one two", np.arange(4), np.array([1, 2]), spans) for _ in range(ROWS)]
    enrolled = Prototypes(("ana", "bob"), np.array([[0, 0], [1, 1]], np.float32), np.array([1, 1]))
    shapes = {"color": 3, "tags": 2, "level": 1, "place": 2, "vector": 3, "who": 2, "nobody": 2}
    made = {}
    for name, head in spec.heads.items():
        shape = {"slots": (ROWS, 4, 2), "ground": (ROWS, 2, 3, 4)}.get(name) or (ROWS, shapes[name])
        output = generator.standard_normal(shape).astype(np.float32)
        if name == "who":
            output[0] = 50  # near to nobody
        made[name] = HeadAnswers(head, output, texts if name == "slots" else (), enrolled if name == "who" else None)
    return made


def plain(answer: object) -> dict[str, object]:
    """An answer's values, vectors as lists."""
    values = {field.name: getattr(answer, field.name) for field in fields(answer)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


@pytest.mark.parametrize("head", HEADS)
def test_arrow_and_json_are_alike(answers, head):
    query = Query(ROWS, {}, (head,), Options())
    part = {head: slice(0, ROWS)}
    table = rows_of(arrowanswers.encode(query, answers, part).body)
    lines = orjson.loads(json.encode(query, answers, part).body)["predictions"]
    assert len(table) == ROWS
    for row, line in zip(table, lines, strict=True):
        expected = answer_of(line[head])
        assert type(row[head]) is type(expected)
        for name, value in plain(expected).items():
            found = plain(row[head])[name]
            if isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float)):
                assert found == pytest.approx(value, rel=1e-6)
            elif name == "entities":
                assert [(e.label, e.start, e.end) for e in found] == [(e.label, e.start, e.end) for e in value]
            else:
                assert found == value


def test_a_mask_is_drawn_from_its_runs(answers):
    row = answers["ground"].rows(slice(0, 1), Options())[0]
    answer = answer_of(orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)))
    assert isinstance(answer, Segmentation)
    np.testing.assert_array_equal(answer.mask(), answers["ground"].masks[0])
    with pytest.raises(ValueError, match="read `png`"):
        Segmentation(["a"], [1.0], [1, 1], png="x").mask()


def test_where_nobody_is_enrolled_there_is_no_label():
    answer = answer_of({"label": None, "score": None, "distance": None})
    assert answer == OneShot(None, None, None)


@pytest.mark.parametrize("content", [b"", b"no arrow at all", b"\xff\xff\xff\xff\x10\x00\x00\x00"])
def test_what_is_no_stream_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"."):
        rows_of(content)
