from __future__ import annotations

import base64
import json as strict_json
import logging
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from polyhead.models.spec import ImageInput
from polyhead.serving.golden import Array
from polyhead.serving.protocol.images import encode_png
from polyhead.serving.request import HttpRequest, HttpResponse
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

SLOTS = 32
OCTETS = "application/octet-stream"
HEADS = ("tags", "color", "level", "position", "vector")


def _json(body: Any) -> HttpRequest:
    return HttpRequest(body if isinstance(body, bytes) else orjson.dumps(body), "application/json")


def _octets(row: Array, heads: Sequence[str] = ()) -> HttpRequest:
    return HttpRequest(row.tobytes(), OCTETS, {"x-polyhead-heads": ",".join(heads)} if heads else {})


def _error(response: HttpResponse) -> dict[str, Any]:
    body = orjson.loads(response.body)
    assert set(body) == {"error", "type", "loc"}, body
    assert response.content_type == "application/json"
    return dict(body)


def _rows(response: HttpResponse) -> list[dict[str, Any]]:
    assert (response.status, response.phrase) == (200, "OK"), response.body
    body = orjson.loads(response.body)
    return body["predictions"] if set(body) == {"predictions"} else [body]


@pytest.fixture(scope="module")
def of_mlp(mlp) -> Responder:
    return Responder(mlp.engine(), Settings(max_rows=100))


@pytest.fixture(scope="module")
def of_picture(picture) -> Responder:
    return Responder(picture.engine(), Settings())


@pytest.fixture(scope="module")
def of_logarithm(logarithm) -> Responder:
    return Responder(logarithm.engine(), Settings())


@pytest.fixture(scope="module")
def of_lookup(lookup) -> Responder:
    return Responder(lookup.engine(), Settings())


@pytest.fixture(scope="module")
def mlp_batch(mlp) -> list[HttpRequest]:
    """32 requests: JSON of one row and of three, named rows, raw bytes; all heads and some; every option."""
    x = mlp.samples["x"]
    batch = []
    for slot in range(SLOTS):
        row = x[slot]
        batch.append(
            (
                _json({"instances": [row.tolist()]}),
                _json(
                    {
                        "instances": np.roll(x, -slot, axis=0)[:3].tolist(),
                        "heads": [HEADS[slot % 5], HEADS[(slot + 3) % 5]],
                        "options": {"top_k": 2, "raw": True},
                    }
                ),
                _octets(row, HEADS[slot % 4 : slot % 4 + 2]),
                _json({"instances": [{"x": row.tolist()}], "options": {"scores": True}}),
            )[slot % 4]
        )
    return batch


@pytest.fixture(scope="module")
def picture_batch(picture) -> list[HttpRequest]:
    """32 requests: PNG files, base64 in JSON, pixels in JSON, two images in one request."""
    spec = picture.bundle.spec.inputs["image"]
    assert isinstance(spec, ImageInput)
    files = [encode_png(pixels, spec) for pixels in picture.samples["image"][:SLOTS]]
    batch = []
    for slot, data in enumerate(files):
        encoded = {"b64": base64.b64encode(data).decode()}
        batch.append(
            (
                HttpRequest(data, "image/png"),
                _json({"instances": [encoded], "heads": ["ink"]}),
                _json({"instances": [picture.samples["image"][slot].tolist()]}),
                _json({"instances": [{"image": encoded}, picture.samples["image"][slot, ..., 0].tolist()]}),
            )[slot % 4]
        )
    return batch


ROW = [0.5, -1.0, 2.0, 0.0, 1.0, -0.5]
NAN_BYTES = np.array([1, 2, np.nan, 4, 5, 6], np.float32).tobytes()
BAD_FOR_MLP = {
    "malformed JSON": (_json(b'{"instances": [[1, 2'), 400, "malformed_body", []),
    "no body": (_json(b""), 400, "malformed_body", []),
    "NaN in JSON": (_json(b'{"instances": [[NaN, 1, 1, 1, 1, 1]]}'), 400, "malformed_body", []),
    "deep JSON": (_json(b"[" * 10_000), 400, "malformed_body", []),
    "wrong shape": (_json({"instances": [ROW, ROW[:5]]}), 422, "invalid_instance", ["instances", 1, "x"]),
    "a string": (_json({"instances": [[*ROW[:5], "1"]]}), 422, "invalid_instance", ["instances", 0, "x"]),
    "overflow": (_json({"instances": [[*ROW[:5], 1e39]]}), 422, "input_not_finite", ["instances", 0, "x"]),
    "NaN in bytes": (HttpRequest(NAN_BYTES, OCTETS), 422, "input_not_finite", []),
    "too few bytes": (HttpRequest(NAN_BYTES[:20], OCTETS), 422, "invalid_instance", []),
    "unknown head": (_json({"instances": [ROW], "heads": ["tags", "nose"]}), 422, "unknown_head", ["heads", 1]),
    "unknown option": (_json({"instances": [ROW], "options": {"k": 1}}), 422, "unknown_option", ["options", "k"]),
    "too many rows": (_json({"instances": [ROW] * 101}), 413, "payload_too_large", ["instances"]),
    "wrong media type": (HttpRequest(b"\x89PNG", "image/png"), 415, "unsupported_media_type", []),
    "unknown media type": (HttpRequest(b"1,2,3", "text/csv"), 415, "unsupported_media_type", []),
    "no media type": (HttpRequest(b"\0" * 24, ""), 415, "unsupported_media_type", []),
}
HEADER = b"IHDR" + struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)
BOMB = (
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", 13)
    + HEADER
    + struct.pack(">I", zlib.crc32(HEADER))
    + b"\0\0\0\0IEND\xaeB`\x82"
)
BAD_FOR_PICTURE = {
    "pixel bomb": (HttpRequest(BOMB, "image/png"), 413, "payload_too_large", []),
    "truncated PNG": (HttpRequest(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"), 400, "malformed_body", []),
    "no base64": (
        _json({"instances": [{"b64": "%"}]}),
        400,
        "malformed_body",
        ["instances", 0, "image", "b64"],
    ),
    "wrong shape": (_json({"instances": [[[1, 2], [3, 4]]]}), 422, "invalid_instance", ["instances", 0, "image"]),
    "malformed JSON": (_json(b"{"), 400, "malformed_body", []),
    "unknown head": (_json({"instances": [[[0] * 8] * 8], "heads": ["x"]}), 422, "unknown_head", ["heads", 0]),
    "wrong media type": (HttpRequest(b"\0" * 64, OCTETS), 415, "unsupported_media_type", []),
}


def _assert_fails_alone(
    responder: Responder, batch: Sequence[HttpRequest], bad: HttpRequest, status: int, kind: str, loc: list[Any]
) -> None:
    """Plant the bad request in each slot: it fails, and its neighbours answer as they do without it, bit for bit."""
    for slot in range(len(batch)):
        neighbours = [*batch[:slot], *batch[slot + 1 :]]
        without = responder.respond(neighbours)
        responses = responder.respond([*batch[:slot], bad, *batch[slot + 1 :]])
        assert len(responses) == len(batch)
        refused = responses.pop(slot)
        error = _error(refused)
        assert (refused.status, error["type"], error["loc"]) == (status, kind, loc), slot
        assert [response.status for response in responses] == [200] * len(neighbours), slot
        assert [response.body for response in responses] == [response.body for response in without], slot


@pytest.mark.parametrize("name", list(BAD_FOR_MLP))
def test_a_bad_request_in_any_slot_fails_alone(of_mlp: Responder, mlp_batch: list[HttpRequest], name: str):
    _assert_fails_alone(of_mlp, mlp_batch, *BAD_FOR_MLP[name])


@pytest.mark.parametrize("name", list(BAD_FOR_PICTURE))
def test_a_bad_image_in_any_slot_fails_alone(of_picture: Responder, picture_batch: list[HttpRequest], name: str):
    _assert_fails_alone(of_picture, picture_batch, *BAD_FOR_PICTURE[name])


def test_bad_requests_everywhere_leave_the_good_ones_between(of_mlp: Responder, mlp_batch: list[HttpRequest]):
    bad = [request for request, *_ in BAD_FOR_MLP.values()]
    mixed = [request for pair in zip(bad, mlp_batch, strict=False) for request in pair]
    responses = of_mlp.respond(mixed)
    expected = of_mlp.respond(mlp_batch[: len(bad)])
    assert [r.status for r in responses[::2]] == [status for _, status, *_ in BAD_FOR_MLP.values()]
    assert [r.body for r in responses[1::2]] == [r.body for r in expected]


def test_a_batch_of_bad_requests_runs_nothing(of_mlp: Responder):
    before = of_mlp.engine.forwards
    responses = of_mlp.respond([request for request, *_ in BAD_FOR_MLP.values()])
    assert [response.status for response in responses] == [status for _, status, *_ in BAD_FOR_MLP.values()]
    assert of_mlp.engine.forwards == before


def test_the_same_batch_twice_has_the_same_bytes(of_mlp: Responder, mlp_batch: list[HttpRequest]):
    assert of_mlp.respond(mlp_batch) == of_mlp.respond(mlp_batch)


# --- whose answer it is ---------------------------------------------------------------------------------------------


def _eager(mlp: Any, rows: Array) -> dict[str, Array]:
    with torch.inference_mode():
        outputs = {name: tensor.numpy() for name, tensor in mlp.network(torch.from_numpy(rows.copy())).items()}
    outputs["vector"] = outputs["vector"] / np.linalg.norm(outputs["vector"], axis=1, keepdims=True)
    return outputs


def _assert_answers(spec: Any, answer: dict[str, Any], eager: dict[str, Array]) -> None:
    """A row's answers against the network's own output for that row, by scipy."""
    heads = spec.heads
    if "color" in answer:
        scores = softmax(eager["color"].astype(float))
        assert answer["color"]["label"] == heads["color"].labels[scores.argmax()]
        assert answer["color"]["score"] == pytest.approx(scores.max(), rel=1e-4)
    if "tags" in answer:
        scores = expit(eager["tags"].astype(float))
        held = scores >= heads["tags"].threshold
        assert answer["tags"]["labels"] == [label for label, yes in zip(heads["tags"].labels, held, strict=True) if yes]
        assert answer["tags"]["scores"] == pytest.approx(scores[held].tolist(), rel=1e-4)
    if "level" in answer:
        assert answer["level"]["unit"] == "K"
        assert answer["level"]["value"] == pytest.approx(float(eager["level"][0]), abs=1e-5)
    if "position" in answer:
        assert answer["position"]["value"] == pytest.approx(eager["position"].tolist(), abs=1e-5)
    if "vector" in answer:
        assert answer["vector"]["vector"] == pytest.approx(eager["vector"].tolist(), abs=1e-5)


def test_every_request_gets_the_answers_to_its_own_rows(mlp, of_mlp: Responder, mlp_batch: list[HttpRequest]):
    x = mlp.samples["x"]
    for slot, response in enumerate(of_mlp.respond(mlp_batch)):
        rows = np.roll(x, -slot, axis=0)[: 3 if slot % 4 == 1 else 1]
        eager = _eager(mlp, rows)
        answers = _rows(response)
        assert len(answers) == len(rows)
        for index, answer in enumerate(answers):
            _assert_answers(mlp.bundle.spec, answer, {head: output[index] for head, output in eager.items()})


def test_every_request_gets_its_heads_in_its_order(of_mlp: Responder):
    wanted = [list(HEADS), ["vector"], ["position", "tags"], ["tags", "position"], ["level", "color", "level"]]
    requests = [_json({"instances": [ROW, ROW], "heads": heads}) for heads in wanted]
    for heads, response in zip(wanted, of_mlp.respond(requests), strict=True):
        assert [list(row) for row in _rows(response)] == [list(dict.fromkeys(heads))] * 2
    (response,) = of_mlp.respond([_json({"instances": [ROW]})])
    assert list(_rows(response)[0]) == list(HEADS)  # as the spec declares them, not as the graph sorts them


def test_a_heads_answer_does_not_depend_on_the_others_asked_for(of_mlp: Responder):
    everything, *each = of_mlp.respond(
        [_json({"instances": [ROW]}), *(_json({"instances": [ROW], "heads": [head]}) for head in HEADS)]
    )
    joined = {head: _rows(response)[0][head] for head, response in zip(HEADS, each, strict=True)}
    assert _rows(everything)[0] == joined


def test_options_are_their_own_requests(of_mlp: Responder):
    options: list[dict[str, Any]] = [{}, {"raw": True}, {"top_k": 2}, {"scores": True}, {}]
    requests = [_json({"instances": [ROW], "heads": ["color"], "options": o}) for o in options]
    keys = [set(_rows(response)[0]["color"]) - {"label", "score", "index"} for response in of_mlp.respond(requests)]
    assert keys == [set(), {"raw"}, {"top"}, {"scores"}, set()]


def test_one_row_by_itself_stands_alone_and_instances_in_a_list(of_mlp: Responder):
    row = np.asarray(ROW, np.float32)
    alone, listed = of_mlp.respond([_octets(row, ["level"]), _json({"instances": [ROW], "heads": ["level"]})])
    assert orjson.loads(listed.body) == {"predictions": [orjson.loads(alone.body)]}
    assert set(orjson.loads(alone.body)) == {"level"}


def test_an_image_answers_the_same_whatever_carried_it(of_picture: Responder, picture):
    spec = picture.bundle.spec.inputs["image"]
    pixels = picture.samples["image"][0]
    data = encode_png(pixels, spec)
    encoded = {"b64": base64.b64encode(data).decode()}
    instances = [encoded, {"image": encoded}, pixels.tolist(), pixels[..., 0].tolist()]
    file, listed = of_picture.respond([HttpRequest(data, "image/png"), _json({"instances": instances})])
    with torch.inference_mode():
        raw = torch.from_numpy(pixels[None].copy()).permute(0, 3, 1, 2).float() / 255
        eager = picture.network((raw - 0.5) / 0.25)
    for answer in [*_rows(file), *_rows(listed)]:
        assert answer["ink"]["value"] == pytest.approx(eager["ink"].item(), abs=1e-5)
        assert answer["shape"]["index"] == int(eager["shape"].argmax())
        assert answer == _rows(file)[0]


@pytest.mark.parametrize("body", [bytes, bytearray])
def test_a_body_may_be_bytes_or_a_bytearray(of_mlp: Responder, body: Callable[[bytes], bytes]):
    raw = np.asarray(ROW, np.float32).tobytes()
    requests = [
        HttpRequest(body(raw), OCTETS),
        HttpRequest(body(orjson.dumps({"instances": [ROW]})), "application/json"),
    ]
    assert [response.status for response in of_mlp.respond(requests)] == [200, 200]


# --- answers that are not finite ------------------------------------------------------------------------------------


def _logs(count: int) -> list[HttpRequest]:
    rows = np.random.default_rng(1).uniform(0.5, 2, (count, 2)).astype(np.float32)
    return [_json({"instances": [row.tolist()]}) if i % 2 else _octets(row) for i, row in enumerate(rows)]


@pytest.mark.parametrize("value", [-1.0, 0.0, -3e38], ids=["NaN", "-inf", "NaN of a huge number"])
def test_a_row_without_a_finite_answer_fails_alone(of_logarithm: Responder, value: float):
    batch = _logs(SLOTS)
    good = of_logarithm.respond(batch)  # a good row in the slot: the same forward pass but for that row
    for slot in range(SLOTS):
        raw, instances = _octets(np.array([value, 1.0], np.float32)), _json({"instances": [[1.0, value]]})
        responses = of_logarithm.respond([*batch[:slot], raw if slot % 2 else instances, *batch[slot + 1 :]])
        refused = responses.pop(slot)
        assert refused.status == 422
        assert _error(refused) == {
            "error": "head 'log' answered NaN or infinity for this row: its values are beyond what the model can take",
            "type": "answer_not_finite",
            "loc": [] if slot % 2 else ["instances", 0],
        }
        expected = [*good[:slot], *good[slot + 1 :]]
        assert [r.body for r in responses] == [r.body for r in expected], slot


@pytest.mark.parametrize("row", [0, 1, 4])
def test_the_row_of_a_larger_request_is_named(of_logarithm: Responder, row: int):
    instances = [[1.0, 2.0] for _ in range(5)]
    instances[row] = [2.0, -1.0]
    responses = of_logarithm.respond([*_logs(3), _json({"instances": instances}), *_logs(3)])
    assert [response.status for response in responses] == [200] * 3 + [422] + [200] * 3
    assert _error(responses[3])["loc"] == ["instances", row]


def test_the_first_of_several_bad_rows_is_named(of_logarithm: Responder):
    (response,) = of_logarithm.respond([_json({"instances": [[1, 1], [1, -1], [1, 1], [-1, 1]]})])
    assert _error(response)["loc"] == ["instances", 1]


def test_a_head_that_was_not_asked_for_cannot_fail_a_request(of_logarithm: Responder):
    both, half, log = of_logarithm.respond(
        [
            _json({"instances": [[1, -1]]}),
            _json({"instances": [[1, -1]], "heads": ["half"]}),
            _json({"instances": [[1, -1]], "heads": ["log"]}),
        ]
    )
    assert (both.status, log.status) == (422, 422)
    assert _rows(half) == [{"half": {"value": [0.5, -0.5], "unit": ""}}]


def test_denormal_numbers_change_no_neighbour(of_logarithm: Responder):
    batch = _logs(8)
    good = of_logarithm.respond(batch)
    responses = of_logarithm.respond(
        [*batch[:3], _json({"instances": [[1e-42, 1e-45]], "heads": ["half"]}), *batch[4:]]
    )
    assert responses[3].status == 200
    assert [responses[i].body for i in range(8) if i != 3] == [good[i].body for i in range(8) if i != 3]


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_no_finite_input_is_ever_answered_with_nan_or_null(of_logarithm: Responder):
    @settings(max_examples=150, deadline=None, database=None)
    @given(row=st.tuples(FINITE, FINITE))
    def check(row: tuple[float, float]) -> None:
        (response,) = of_logarithm.respond([_json({"instances": [list(row)], "options": {"raw": True}})])
        body = strict_json.loads(response.body, parse_constant=pytest.fail)
        if min(row) <= 0:
            assert (response.status, body["type"]) == (422, "answer_not_finite")
        elif min(row) >= np.finfo(np.float32).tiny:  # of denormals the runtime may say either
            answer = body["predictions"][0]
            np.testing.assert_allclose(answer["log"]["value"], np.log(row), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(answer["half"]["raw"], np.multiply(row, 0.5), rtol=1e-6)
        assert b"null" not in response.body

    check()


# --- a runtime that raises ------------------------------------------------------------------------------------------


def _index(*indices: int) -> HttpRequest:
    return _json({"instances": [[index] for index in indices]})


@pytest.mark.parametrize("slot", [0, 3, 7])
def test_a_request_that_makes_the_runtime_raise_fails_alone(
    of_lookup: Responder, slot: int, caplog: pytest.LogCaptureFixture
):
    batch = [_index(i % 8, (i + 1) % 8) for i in range(8)]
    good = of_lookup.respond(batch)
    with caplog.at_level(logging.ERROR):
        responses = of_lookup.respond([*batch[:slot], _index(1, 99), *batch[slot + 1 :]])
    refused = responses.pop(slot)
    assert (refused.status, refused.phrase) == (500, "Internal Server Error")
    assert _error(refused) == {
        "error": "the model failed on this request: the server has logged it",
        "type": "internal_error",
        "loc": [],
    }
    assert [r.body for r in responses] == [r.body for r in (*good[:slot], *good[slot + 1 :])]
    assert [record.getMessage() for record in caplog.records] == [
        "a forward pass of 8 requests failed",
        "a forward pass of 1 requests failed",
    ]
    assert all(record.exc_info for record in caplog.records)  # the details are for the operator


def test_a_lone_request_that_makes_the_runtime_raise_is_answered(of_lookup: Responder):
    (response,) = of_lookup.respond([_index(99)])
    assert response.status == 500
    assert of_lookup.respond([_index(3)])[0].status == 200


# --- one batch, one forward pass ------------------------------------------------------------------------------------


def test_one_batch_is_one_forward_pass(of_mlp: Responder, mlp_batch: list[HttpRequest]):
    forwards, rows = of_mlp.engine.forwards, of_mlp.engine.rows
    bad = [request for request, *_ in BAD_FOR_MLP.values()]
    of_mlp.respond([*mlp_batch, *bad])
    assert of_mlp.engine.forwards == forwards + 1
    assert of_mlp.engine.rows == rows + 24 * 1 + 8 * 3  # a fourth of the 32 requests has three rows


@pytest.mark.parametrize(("limit", "forwards"), [(1, 10), (3, 4), (9, 2), (10, 1), (1024, 1)])
def test_more_rows_than_a_forward_pass_may_take_are_run_in_several(lookup, limit: int, forwards: int):
    requests = [_index(0, 1, 2), _index(7), _index(6, 5, 4, 3, 2, 1)]
    expected = Responder(lookup.engine(), Settings()).respond(requests)
    responder = Responder(lookup.engine(), Settings(max_rows_per_forward=limit))
    assert responder.respond(requests) == expected
    assert responder.engine.forwards == forwards
    table = lookup.network.table.weight.detach().numpy()
    vectors = [row["entry"]["vector"] for response in expected for row in _rows(response)]
    np.testing.assert_array_equal(np.asarray(vectors, np.float32), table[[0, 1, 2, 7, 6, 5, 4, 3, 2, 1]])


def test_counters_count_batches_requests_and_failures(mlp):
    responder = Responder(mlp.engine(), Settings())
    assert (responder.batches, responder.requests, responder.failures) == (0, 0, 0)
    good = _json({"instances": [ROW]})
    responder.respond([good, good])
    assert (responder.batches, responder.requests, responder.failures) == (1, 2, 0)
    responder.respond([good, _json(b"{"), good, HttpRequest(b"", "text/plain")])
    assert (responder.batches, responder.requests, responder.failures) == (2, 6, 2)
    responder.respond([_json(b"{")])
    assert (responder.batches, responder.requests, responder.failures) == (3, 7, 3)


def test_answers_that_are_not_finite_count_as_failures(logarithm):
    responder = Responder(logarithm.engine(), Settings())
    responder.respond([*_logs(2), _json({"instances": [[-1, 1]]})])
    assert (responder.batches, responder.requests, responder.failures) == (1, 3, 1)


def test_a_media_type_that_nobody_reads_names_those_that_are_read(of_mlp: Responder, of_picture: Responder):
    (response,) = of_mlp.respond([HttpRequest(b"", "text/csv")])
    assert (response.status, response.phrase) == (415, "Unsupported Media Type")
    assert _error(response)["error"] == (
        "media type 'text/csv' is not read here: set Content-Type to one of application/json, "
        "application/octet-stream, application/x-npy, application/vnd.apache.arrow.stream"
    )
    (response,) = of_picture.respond([HttpRequest(b"", "")])
    assert _error(response)["error"] == (
        "media type 'none' is not read here: set Content-Type to one of application/json, image/png, image/jpeg, "
        "application/x-npy, application/vnd.apache.arrow.stream"
    )
