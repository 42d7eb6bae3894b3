"""The handler, given what TorchServe's worker gives it: a real context, bodies by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import orjson
import pytest

from polyhead.serving.request import HttpResponse
from polyhead.serving.torchserve.handler import OVERHEAD, PolyheadHandler, _bounded

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it reads its version
    from ts.context import Context, RequestProcessor

ROW = [0.5, -1.0, 2.0, 0.0, 1.5, 3.0]
BODY = orjson.dumps({"instances": [ROW]})


def context_for(folder: Path, config: dict[str, object]) -> Context:
    context = Context("m", str(folder), {}, 32, None, "0.12.0")
    context.model_yaml_config = {"polyhead": {"bundle": ".", **config}}
    return context


@pytest.fixture(scope="module")
def handler(mlp) -> PolyheadHandler:
    made = PolyheadHandler()
    made.initialize(context_for(mlp.bundle.folder, {"settings": {"device": "cpu"}, "max_response_size": 10_000_000}))
    return made


def ask(handler: PolyheadHandler, *requests: tuple[dict[str, object], dict[str, object]]):
    """Bodies and headers of one batch; returns status and parsed body of each."""
    context = Context("m", "/", {}, 32, None, "0.12.0")
    context.request_processor = [RequestProcessor(headers) for _, headers in requests]
    bodies = handler.handle([entry for entry, _ in requests], context)
    statuses = [context.get_response_status(index) for index in range(len(requests))]
    return [(status, json.loads(body)) for (status, _), body in zip(statuses, bodies, strict=True)]


def posted(body: object, media_type: str = "application/json", **headers: object):
    return {"body": body}, {"body": {"content-type": media_type}, "explain": "False", **headers}


def test_a_batch_is_answered_in_order_with_a_status_each(handler):
    results = ask(handler, posted(bytearray(BODY)), posted(bytearray(b"{")), posted(bytearray(BODY)))
    assert [status for status, _ in results] == [200, 400, 200]
    assert results[0] == results[2]
    assert results[1][1]["type"] == "malformed_body"


@pytest.mark.parametrize("name", ["X-Polyhead-Heads", "x-polyhead-heads", "X-POLYHEAD-HEADS"])
def test_headers_are_found_in_any_casing(handler, name):
    row = np.asarray(ROW, "<f4").tobytes()
    ((status, answer),) = ask(handler, posted(bytearray(row), "application/octet-stream", **{name: "level"}))
    assert (status, list(answer)) == (200, ["level"])


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
def test_a_media_type_is_read_without_casing_and_parameters(handler, media_type):
    assert ask(handler, posted(bytearray(BODY), media_type))[0][0] == 200


def test_a_body_that_torchserve_has_parsed_already_is_answered_alike(handler):
    raw, parsed = ask(handler, posted(bytearray(BODY)), posted(json.loads(BODY)))
    assert raw == parsed


@pytest.mark.parametrize("parsed", [{"instances": [[2**70]]}, {"instances": ["\ud800"]}, "\ud800"])
def test_a_parsed_body_that_our_parser_refuses_fails_alone(handler, parsed):
    good, bad = ask(handler, posted(bytearray(BODY)), posted(parsed))
    assert good[0] == 200
    assert (bad[0], bad[1]["type"]) == (400, "malformed_body")


def test_a_form_is_no_body(handler):
    ((status, answer),) = ask(handler, ({"a": b"1"}, {"Content-Type": "application/x-www-form-urlencoded"}))
    assert (status, answer["type"]) == (415, "unsupported_media_type")


def test_the_description_is_told_to_the_management_api_alone(handler):
    ((status, described),) = ask(handler, ({}, {"describe": "True"}))
    assert status == 200
    assert described["model"].startswith("mlp/")
    ((status, refused),) = ask(handler, posted(bytearray(), describe="True"))
    assert (status, refused["type"]) == (400, "malformed_body")


def response(size: int) -> HttpResponse:
    return HttpResponse(200, "OK", b"x" * size)


def test_answers_that_fit_together_are_left_alone_however_uneven():
    responses = [response(50_000), response(10)]
    assert _bounded(responses, 60_000) == responses


def test_of_answers_that_do_not_fit_the_large_ones_are_refused():
    large, small = _bounded([response(90_000), response(10)], 60_000)
    assert (large.status, small) == (413, response(10))
    assert f"there is room for {60_000 // 2 - OVERHEAD}" in json.loads(large.body)["error"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"digest": "0" * 64}, "was changed since the server started"),
        ({"settings": {"thread": 1}}, "thread: is not a key that is known here"),
        ({"settings": {"device": "cuda:7"}}, "device 'cuda:7' is not there"),
        ({"bundle": "nowhere"}, "is no directory"),
    ],
)
def test_a_worker_that_cannot_load_reports_why_and_ends(mlp, tmp_path, config, message):
    with pytest.raises(RuntimeError, match=message):
        PolyheadHandler().initialize(context_for(mlp.bundle.folder, {**config, "report": str(tmp_path / "worker")}))
    (report,) = tmp_path.glob("worker.*.json")
    assert json.loads(report.read_text()) == {"ok": False, "error": report_error(report)}
    assert message in report_error(report)


def test_a_worker_that_has_loaded_reports_what_it_runs_and_why(mlp, tmp_path):
    config = {"settings": {"device": "cpu"}, "report": str(tmp_path / "worker")}
    PolyheadHandler().initialize(context_for(mlp.bundle.folder, config))
    (report,) = tmp_path.glob("worker.*.json")
    assert json.loads(report.read_text()) == {
        "ok": True,
        "graph": "fused-onnx",
        "runtime": "onnxruntime",
        "device": "cpu",
        "why": "the first runtime with a graph",
        "mode": "eager",
        "apart": [],
        "why_apart": "the bundle has no graphs of trunk and heads: they were not asked for",
    }


def report_error(path: Path) -> str:
    return json.loads(path.read_text())["error"]
