"""Requests that want different heads share one trunk pass, and a dear head sees the rows that asked for it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import choose
from polyhead.serving.engine import Engine
from polyhead.serving.record import Record
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from polyhead.serving.wanted import Wanted
from tests.alike import assert_alike
from tests.unit.serving.test_cobatching import TEXTS, Texts, exported

APART = ("slots", "urgent", "vector")
HEADS = tuple(TEXTS["heads"])
WORDS = ["turn", "on", "the", "kitchen", "light", "off"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return exported(Texts, TEXTS, tmp_path_factory.mktemp("bundles"))


def _responder(bundle: Bundle, apart: str, **limits: int) -> Responder:
    return Responder(
        Engine.of(bundle, choose(bundle, "onnxruntime", "cpu", "fp32"), "cpu", 1, apart), Settings(**limits)
    )


@pytest.fixture(scope="module")
def fused(bundle: Bundle) -> Responder:
    return _responder(bundle, "none")


@pytest.fixture(scope="module")
def planned(bundle: Bundle) -> Responder:
    return _responder(bundle, ",".join(APART))


@pytest.fixture(scope="module")
def planned_in_passes(bundle: Bundle) -> Responder:
    """One that cannot take a batch in one forward pass, so that rows are sorted by length."""
    return _responder(bundle, ",".join(APART), max_rows_per_forward=3)


def _request(rows: list[tuple[int, float]], heads: list[str], **options: Any) -> HttpRequest:
    instances = [{"text": " ".join(WORDS[:n]), "weight": [w, 1.0]} for n, w in rows]
    return HttpRequest(orjson.dumps({"instances": instances, "heads": heads, "options": options}), "application/json")


ROW = st.tuples(st.integers(0, 6), st.floats(-2, 2, width=32))
REQUEST = st.tuples(
    st.lists(ROW, min_size=1, max_size=4), st.lists(st.sampled_from(HEADS), min_size=1, unique=True), st.booleans()
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(REQUEST, min_size=1, max_size=6))
def test_answers_are_those_of_the_fused_graph(fused, planned, planned_in_passes, asked):
    requests = [_request(rows, heads, **({"raw": True} if raw else {})) for rows, heads, raw in asked]
    expected = [orjson.loads(response.body) for response in fused.respond(requests)]
    for responder in (planned, planned_in_passes):
        found = [orjson.loads(response.body) for response in responder.respond(requests)]
        assert_alike(found, expected, rtol=1e-6, atol=1e-5)
        for (_, heads, _), body in zip(asked, found, strict=True):
            assert all(list(row) == heads for row in body["predictions"])


def test_a_head_sees_the_rows_that_asked_and_the_trunk_runs_once(planned: Responder):
    engine = planned.engine
    engine.runtime.head_rows.clear()
    forwards = engine.forwards
    planned.respond(
        [
            _request([(1, 0.0), (2, 0.0)], ["intent"]),
            _request([(3, 0.0)], ["slots", "intent"]),
            _request([(4, 0.0), (5, 0.0), (6, 0.0)], ["vector"]),
        ]
    )
    assert engine.forwards == forwards + 1
    counted = {"slots": 1, "vector": 3, "intent": 6}
    assert {head: engine.head_rows.get(head, 0) for head in (*counted, "urgent")} == counted | {"urgent": 0}


def test_a_head_that_all_want_is_not_picked_row_by_row(planned: Responder):
    engine = planned.engine
    engine.runtime.head_rows.clear()
    planned.respond([_request([(1, 0.0), (2, 0.0)], list(HEADS)), _request([(3, 1.0)], list(HEADS))])
    assert engine.head_rows == dict.fromkeys(HEADS, 3)


def test_golden_samples_are_replayed_through_the_heads_apart(planned: Responder):
    assert planned.engine.replay_golden().keys() == set(HEADS)
    assert planned.engine.apart == APART
    assert planned.engine.plan.why == "as asked"


def test_a_record_tells_what_was_asked_of_each_head(bundle: Bundle):
    records: list[Record] = []
    responder = _responder(bundle, ",".join(APART))
    responder.observe = records.append
    responder.respond([_request([(1, 0.0)], ["intent"]), _request([(2, 0.0)] * 2, ["vector"])])
    (record,) = records
    assert record.requests == 2
    ((wanted, answers),) = record.answered
    assert wanted.rows["vector"].tolist() == [1, 2]
    assert len(answers["vector"].output) == 2
    assert all(record.seconds[stage] > 0 for stage in ("decode", "collate", "forward", "answer", "encode"))


def test_parts_of_heads_apart_are_counted_by_themselves():
    queries = [Query(2, {}, ("a",)), Query(1, {}, ("a", "b")), Query(3, {}, ("b",)), Query(1, {}, ("c", "a"))]
    wanted = Wanted(queries, ("b", "c"))
    assert wanted.heads == ("a", "b", "c")
    assert {head: rows.tolist() for head, rows in wanted.rows.items()} == {"b": [2, 3, 4, 5], "c": [6]}
    parts = [(part, dict(own)) for _, part, own in wanted.parts()]
    assert parts == [
        (slice(0, 2), {}),
        (slice(2, 3), {"b": slice(0, 1)}),
        (slice(3, 6), {"b": slice(1, 4)}),
        (slice(6, 7), {"c": slice(0, 1)}),
    ]
    assert not Wanted([queries[1], queries[1]], ("b",)).rows
    assert np.array_equal(Wanted(queries[:2], ("b",)).rows["b"], [2])
