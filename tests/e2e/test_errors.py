"""Bad requests: each fails alone, with its own status and place."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.command import ROOT
from tests.server import serving

JSON = "application/json"
INPUT = "measurements"
ROW = [float(i) for i in range(12)]

BAD = [
    pytest.param(JSON, b"{", 400, "malformed_body", [], id="not JSON"),
    pytest.param(JSON, b'{"instances": [[1, NaN]]}', 400, "malformed_body", [], id="NaN literal"),
    pytest.param(JSON, b"\xff\xfe", 400, "malformed_body", [], id="invalid UTF-8"),
    pytest.param(JSON, b"[]", 422, "invalid_instance", [], id="not an object"),
    pytest.param(JSON, {"instances": []}, 422, "invalid_instance", ["instances"], id="no rows"),
    pytest.param(JSON, {"instances": [ROW, ROW[:-1]]}, 422, "invalid_instance", ["instances", 1, INPUT], id="shape"),
    pytest.param(JSON, {"instances": [["x"] * 12]}, 422, "invalid_instance", ["instances", 0, INPUT], id="strings"),
    pytest.param(JSON, {"instances": [[1e39] * 12]}, 422, "input_not_finite", ["instances", 0, INPUT], id="overflow"),
    pytest.param(JSON, {"instances": [ROW], "heads": ["colour"]}, 422, "unknown_head", ["heads", 0], id="unknown head"),
    pytest.param(JSON, {"instances": [ROW], "head": []}, 422, "unknown_option", ["head"], id="unknown key"),
    pytest.param(JSON, {"instances": [{"x": ROW}]}, 422, "invalid_instance", ["instances", 0, "x"], id="unknown input"),
    pytest.param(JSON, {"instances": [ROW] * 10_001}, 413, "payload_too_large", ["instances"], id="too many rows"),
    pytest.param("application/octet-stream", b"\0" * 47, 422, "invalid_instance", [], id="odd bytes"),
    pytest.param("application/octet-stream", b"\xff" * 48, 422, "input_not_finite", [], id="NaN bytes"),
    pytest.param("image/png", b"\x89PNG", 415, "unsupported_media_type", [], id="an image for a tensor"),
    pytest.param("text/csv", b"1,2", 415, "unsupported_media_type", [], id="unknown media type"),
    pytest.param("application/x-www-form-urlencoded", b"a=1", 415, "unsupported_media_type", [], id="a form"),
]


def post(server, media_type, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.http.post("/predictions/wine", content=content, headers={"Content-Type": media_type})


@pytest.mark.parametrize(("media_type", "body", "status", "kind", "loc"), BAD)
def test_a_bad_request_gets_its_status_type_and_place(server, media_type, body, status, kind, loc):
    response = post(server, media_type, body)
    content = response.json()
    assert (response.status_code, content["type"], content["loc"]) == (status, kind, loc)
    assert set(content) == {"error", "type", "loc"}
    assert "Traceback" not in content["error"]
    assert "/" not in content["error"].replace("application/", "").replace("image/", "").replace("text/", "")


def test_the_message_of_an_unknown_head_lists_the_heads(server):
    message = post(server, JSON, {"instances": [ROW], "heads": ["colour"]}).json()["error"]
    assert message == "head 'colour' is not in model wine 1.0 (heads: cultivar, alcohol): check \"heads\""


def test_bad_requests_among_good_ones_change_no_neighbour(server):
    generator = np.random.default_rng(0)
    rows = generator.uniform(0, 10, (32, 12)).astype("<f4")
    bad = {3: b"\xff" * 48, 11: b"\0", 17: b"\xff" * 48, 31: b""}
    bodies = [bad.get(index, row.tobytes()) for index, row in enumerate(rows)]
    with ThreadPoolExecutor(32) as pool:
        before = server.counts("wine")
        responses = list(pool.map(lambda body: post(server, "application/octet-stream", body), bodies))
        after = server.counts("wine")
    assert after["batches"] - before["batches"] < 16, "the requests did not meet in batches"
    assert after["failures"] - before["failures"] == len(bad)
    for index, (row, response) in enumerate(zip(rows, responses, strict=True)):
        if index in bad:
            assert response.status_code == 422, index
            continue
        alone = post(server, "application/octet-stream", row.tobytes()).json()
        answer = response.json()
        assert answer["cultivar"]["label"] == alone["cultivar"]["label"]
        assert answer["alcohol"]["value"] == pytest.approx(alone["alcohol"]["value"], rel=1e-5)


def test_images_of_too_many_pixels_in_all_are_refused_together(server):
    """Each of them alone is allowed: 47 kB that hold 49 million pixels."""
    buffer = io.BytesIO()
    Image.new("L", (7000, 7000)).save(buffer, "PNG")
    image = {"image": {"b64": base64.b64encode(buffer.getvalue()).decode()}}
    refused = server.predict("digits", {"instances": [image] * 2, "heads": ["digit"]})
    assert (refused.status_code, refused.json()["loc"]) == (413, ["instances", 1, "image", "b64"])
    assert server.predict("digits", {"instances": [image], "heads": ["digit"]}).status_code == 200


def test_a_body_that_is_too_large_is_413(server):
    response = server.http.post(
        "/predictions/digits", content=b"\0" * 42_000_000, headers={"Content-Type": "image/png"}
    )
    assert response.status_code == 413


def test_an_answer_too_large_for_the_batch_is_refused_and_harms_no_neighbour(wine, tmp_path):
    config = tmp_path / "config.properties"
    text = (ROOT / "config.properties").read_text()
    config.write_text(text.replace("max_response_size=268435456", "max_response_size=100000"))
    with serving([wine["bundle"]], "--config", str(config), "--max-batch-delay", "200") as running:
        large = {"instances": [ROW] * 2000, "options": {"raw": True}}
        bodies = [large, *({"instances": [ROW]} for _ in range(3))]
        with ThreadPoolExecutor(4) as pool:
            first, *others = pool.map(lambda body: running.predict("wine", body), bodies)
        assert (first.status_code, first.json()["type"]) == (413, "payload_too_large")
        assert [other.status_code for other in others] == [200] * 3
        assert running.counts("wine")["requests"] >= 4


def test_an_unknown_model_is_404(server):
    assert server.predict("nothing", {"instances": []}).status_code == 404


def test_a_client_cannot_ask_for_the_description_of_the_worker(server):
    response = server.http.post("/predictions/wine", content=b"", headers={"Content-Type": JSON, "describe": "True"})
    assert response.status_code == 400
    assert "pid" not in response.text
