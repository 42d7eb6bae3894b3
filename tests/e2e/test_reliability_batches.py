"""No request harms another: reliability tests 2 and 3, and what the fast path keeps apart in one batch."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from tests.e2e.together import clients

OCTETS = {"Content-Type": "application/octet-stream"}
ROWS = np.random.default_rng(7).uniform(0, 10, (31, 12)).astype("<f4")
GOOD = [(row.tobytes(), OCTETS) for row in ROWS]
NAN, INF = np.full(12, np.nan, "<f4").tobytes(), np.full(12, -np.inf, "<f4").tobytes()
BAD = [
    ((NAN, OCTETS), 422, "input_not_finite"),
    ((INF, OCTETS), 422, "input_not_finite"),
    ((b"\0" * 47, OCTETS), 422, "invalid_instance"),
    ((b"", OCTETS), 422, "invalid_instance"),
    ((b"{", {"Content-Type": "application/json"}), 400, "malformed_body"),
    ((b'{"instances": [["x"]]}', {"Content-Type": "application/json"}), 422, "invalid_instance"),
    ((b"x" * 100_000, {"Content-Type": "text/csv"}), 415, "unsupported_media_type"),
    ((ROWS[0].tobytes(), {**OCTETS, "X-Polyhead-Heads": "colour"}), 422, "unknown_head"),
]


def test_a_bad_request_in_any_slot_of_a_batch_fails_alone(server):
    with clients(server, "wine", 32) as all_at_once:
        reference = [answer.body for answer in all_at_once.in_one_batch(GOOD)]
        for slot in range(32):
            request, status, kind = BAD[slot % len(BAD)]
            answers = all_at_once.in_one_batch([*GOOD[:slot], request, *GOOD[slot:]])
            bad = answers.pop(slot)
            assert (bad.status, json.loads(bad.body)["type"]) == (status, kind), slot
            assert [answer.status for answer in answers] == [200] * 31, slot
            # The good rows make the same batch with the bad one and without it: the same bytes.
            assert [answer.body for answer in answers] == reference, slot


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_its_own_rows_422(server, value):
    odd = ROWS[5].copy()
    odd[7] = value
    with clients(server, "wine", 32) as all_at_once:
        reference = [answer.body for answer in all_at_once.in_one_batch(GOOD)]
        answers = all_at_once.in_one_batch([*GOOD[:9], (odd.tobytes(), OCTETS), *GOOD[9:]])
    refused = answers.pop(9)
    assert refused.status == 422
    assert json.loads(refused.body)["type"] == "input_not_finite"
    assert [answer.body for answer in answers] == reference


def test_denormals_are_numbers_and_change_no_neighbour(server):
    tiny = [np.full(12, 1e-42, "<f4"), np.full(12, -1e-45, "<f4"), np.full(12, -0.0, "<f4")]
    with clients(server, "wine", 32) as all_at_once:
        zeros = [(np.zeros(12, "<f4").tobytes(), OCTETS)] * 3
        reference = all_at_once.in_one_batch([*GOOD[:29], *zeros])
        answers = all_at_once.in_one_batch([*GOOD[:29], *((row.tobytes(), OCTETS) for row in tiny)])
    assert [answer.body for answer in answers[:29]] == [answer.body for answer in reference[:29]]
    for answer, zero in zip(answers[29:], reference[29:], strict=True):
        assert answer.status == 200
        assert json.loads(answer.body)["alcohol"]["value"] == pytest.approx(
            json.loads(zero.body)["alcohol"]["value"], rel=1e-5
        )


def test_each_answer_of_a_batch_has_its_own_status_type_and_headers(server):
    sent = [
        (ROWS[0].tobytes(), {**OCTETS, "X-Polyhead-Heads": "alcohol", "X-Request-Id": "mine-1"}),
        (ROWS[0].tobytes(), {**OCTETS, "x-polyhead-heads": "cultivar", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}),
        (ROWS[0].tobytes(), OCTETS),
        (NAN, {**OCTETS, "X-REQUEST-ID": "mine-2"}),
        (ROWS[0].tobytes(), {**OCTETS, "X-Request-Id": "x" * 500}),
    ]
    with clients(server, "wine", len(sent)) as all_at_once:
        answers = all_at_once.in_one_batch(sent)
    assert [answer.status for answer in answers] == [200, 200, 200, 422, 200]
    heads = [list(json.loads(answer.body)) for answer in answers]
    assert heads == [["alcohol"], ["cultivar"], ["cultivar", "alcohol"], ["error", "type", "loc"], heads[2]]
    tags = [answer.headers["X-Polyhead-Request-Id"] for answer in answers]
    assert tags == ["mine-1", "a" * 32, None, "mine-2", None]
    for answer in answers:
        assert answer.headers["X-Polyhead-Model"] == "wine/1.0"
        assert len(answer.headers["X-Polyhead-Bundle"]) == 12
        assert answer.headers["Content-Type"] == "application/json"
        # TorchServe draws an id of its own, whatever the client sent and the worker set.
        assert len(answer.headers.get_all("x-request-id")) == 1
        assert len(answer.headers["x-request-id"]) == 36


def test_a_real_server_runs_the_fast_path(server):
    for model in ("wine", "digits"):
        answer = httpx.get(f"{server.management}/models/{model}", params={"customized": "true"}, trust_env=False)
        assert answer.json()[0]["customizedMetadata"]["fast_path"] is True
