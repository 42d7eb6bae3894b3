"""What Arrow says of every row is what JSON says."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from polyhead.models.spec import ModelSpec, OneShotHead
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.protocol import arrowanswers
from polyhead.serving.request import HttpRequest, Options, Query
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

ARROW = "application/vnd.apache.arrow.stream"
ALL = {"top_k": 2, "scores": True, "raw": True}
TEXTS = ["", "Turn on the kitchen room light", "hello there", "set bath to 2.5", "Zoë’s café 灯 room"]


def instances(example: Any) -> list[Any]:
    spec: ModelSpec = example.bundle.spec
    ((name, value),) = spec.inputs.items()
    return [{name: text} for text in TEXTS] if value.kind == "text" else example.samples[name][:5].tolist()


def plain(head: str, spec: ModelSpec, row: dict[str, Any]) -> dict[str, Any]:
    """An answer of JSON's as Arrow has it: lists in the order of the labels, no unit."""
    found = dict(row)
    found.pop("unit", None)
    labels = getattr(spec.heads[head], "labels", ()) or ("ana", "bob")
    for key in ("scores", "all_scores"):
        if isinstance(found.get(key), dict):
            found[key] = [found[key][label] for label in labels]
    if spec.heads[head].kind == "segmentation" and "raw" in found:
        found["raw"] = np.ravel(found["raw"]).tolist()
    if "png" in found:
        found["png"] = base64.b64decode(found["png"])
    return found


def close(found: Any, told: Any) -> bool:
    if isinstance(told, dict):
        return found.keys() == told.keys() and all(close(found[key], told[key]) for key in told)
    if isinstance(told, list):
        return len(found) == len(told) and all(map(close, found, told))
    return found == pytest.approx(told, rel=1e-5, abs=1e-6) if isinstance(told, float) else found == told


@pytest.mark.parametrize("options", [{}, ALL, {"mask": "png"}], ids=["plain", "all", "png"])
@pytest.mark.parametrize("name", ["mlp", "picture", "lexicon", "field"])
def test_every_head_says_what_json_says(name, options, request):
    example = request.getfixturevalue(name)
    spec = example.bundle.spec
    body = orjson.dumps({"instances": instances(example), "options": options, "heads": list(spec.heads)[::-1]})
    told, given = Responder(example.engine(), Settings()).respond(
        [HttpRequest(body, "application/json"), HttpRequest(body, "application/json", {"accept": ARROW})]
    )
    assert (given.status, given.content_type) == (200, ARROW)
    table = pa.ipc.open_stream(given.body).read_all()
    assert table.column_names == list(spec.heads)[::-1]
    predictions = orjson.loads(told.body)["predictions"]
    assert table.num_rows == len(predictions)
    for row, answers in zip(table.to_pylist(), predictions, strict=True):
        for head, answer in answers.items():
            assert close(row[head], plain(head, spec, answer)), (head, row[head], answer)


def test_what_json_repeats_stands_once(mlp):
    body = orjson.dumps({"instances": instances(mlp)})
    (given,) = Responder(mlp.engine(), Settings()).respond([HttpRequest(body, "application/json", {"accept": ARROW})])
    schema = pa.ipc.open_stream(given.body).schema
    assert {field.name: field.metadata[b"kind"].decode() for field in schema} == {
        name: head.kind for name, head in mlp.bundle.spec.heads.items()
    }
    assert pa.types.is_dictionary(schema.field("color").type.field("label").type)
    assert schema.field("level").type.field("value").metadata == {b"unit": b"K"}
    assert schema.field("position").type.field("value").type == pa.list_(pa.float32(), 3)
    assert schema.field("vector").type.field("vector").type == pa.list_(pa.float32(), 5)


@pytest.mark.parametrize("options", [Options(), Options(**ALL)], ids=["plain", "all"])
def test_a_head_without_any_class_answers_nulls(options):
    answers = HeadAnswers(OneShotHead(kind="oneshot", dim=4), np.ones((3, 4), np.float32))
    response = arrowanswers.encode(Query(3, {}, ("who",), options), {"who": answers}, {"who": slice(0, 3)})
    for row in pa.ipc.open_stream(response.body).read_all().to_pylist():
        assert (row["who"]["label"], row["who"]["score"], row["who"]["distance"]) == (None, None, None)
        assert row["who"].get("scores", []) == row["who"].get("top", []) == []
