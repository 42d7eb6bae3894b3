"""The door with nginx itself, and servers of the standard library behind it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
import time

import httpx
import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.door import FrontDoor
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from tests.unit.serving.frontdoor.upstream import Answer, torchserves


def eventually(condition, seconds: float = 10.0) -> bool:
    """Whether something is seen to be true in time; old workers of nginx may still answer for a moment after it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_ours(response: httpx.Response, status: int, kind: str) -> bool:
    """Whether an answer is the door's own JSON, and names nothing of the machine."""
    body = response.json()
    assert (response.status_code, body["type"]) == (status, kind), response.text
    assert set(body) == {"error", "type", "loc"}
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers["x-request-id"]) == 32
    assert not [word for word in ("nginx", "/tmp", "_door", "127.0.0.1") if word in response.text]
    return True


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/digits",
        "/predictions/digits/1.0",
        "/v1/models/digits:predict",
        "/v2/models/digits/infer",
        "/v2/models/digits/versions/1.0/infer",
    ],
)
def test_predictions_go_to_torchserve_as_they_were_sent(opened, path):
    one = opened()
    response = one.predict(path, b"\x00\xff body", headers={"Content-Type": "application/x-npy"})
    assert response.json() == {"predictions": []}
    (seen,) = one.torchserve.seen
    assert (seen.method, seen.path, seen.body) == ("POST", path, b"\x00\xff body")
    assert seen.headers["content-type"] == "application/x-npy"
    assert one.side.seen == []


def test_a_query_is_not_passed_on(opened):
    one = opened()
    assert one.predict("/predictions/digits?url=http://evil&customized=true").status_code == 200
    assert one.torchserve.seen[0].path == "/predictions/digits"


@pytest.mark.parametrize(
    "path",
    [
        "/", "/docs", "/openapi.json", "/metrics", "/console/app.js", "/v2", "/v2/models", "/v2/models/digits",
        "/v2/models/digits/ready", "/v2/models/digits/versions/1.0", "/v2/models/digits/versions/1.0/ready",
        "/v2/health/live", "/v2/health/ready",
    ],
)  # fmt: skip
def test_what_torchserve_lacks_is_asked_of_the_side_server(opened, path):
    one = opened()
    assert one.http.get(path).status_code == 200
    assert one.http.head(path).status_code == 200
    assert [(seen.method, seen.path) for seen in one.side.seen] == [("GET", path), ("HEAD", path)]
    assert is_ours(one.http.post(path, content=b"{}"), 405, "method_not_allowed")
    assert one.http.delete(path).headers["allow"] == "GET, HEAD"
    assert len(one.side.seen) == 2
    assert one.torchserve.seen == []


def test_headers_that_torchserve_takes_for_orders_do_not_pass(opened):
    one = opened()
    orders = {
        "explain": "True", "describe": "True", "url_path": "openapi.json", "ts_request_sequence_id": "1",
        "Authorization": "Bearer x", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "TE": "trailers", "X-Other": "x",
    }  # fmt: skip
    wanted = {
        "Content-Type": "text/plain", "Content-Encoding": "gzip", "Accept": "a/b", "X-Polyhead-Heads": "digit",
        "X-Polyhead-Options": '{"raw": true}', "Inference-Header-Content-Length": "7", "Tracestate": "a=1",
    }  # fmt: skip
    assert one.predict(headers={**orders, **wanted}).status_code == 200
    got = one.torchserve.seen[0].headers
    assert got == {
        **{name.lower(): value for name, value in wanted.items()},
        "host": "localhost", "content-length": "2", "x-request-id": got["x-request-id"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "my-id.7_x"}, "my-id.7_x"),
        ({"Traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, "ab" * 16),
        ({"X-Request-Id": "mine", "Traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, "mine"),
        ({"X-Request-Id": "a b"}, None),
        ({"X-Request-Id": "a" * 129}, None),
        ({"X-Request-Id": 'x"}'}, None),
        ({"Traceparent": f"00-{'0' * 32}-{'cd' * 8}-01"}, None),
        ({}, None),
    ],
)
def test_a_sane_id_of_the_clients_is_kept_and_any_other_replaced(opened, headers, expected):
    one = opened()
    one.torchserve.answers.append(Answer(headers={"X-Request-Id": "torchserve", "Content-Type": "application/json"}))
    given = one.predict(headers=headers).headers
    assert given.get_list("x-request-id") == [one.torchserve.seen[0].headers["x-request-id"]]
    if expected is None:
        assert len(given["x-request-id"]) == 32
    else:
        assert given["x-request-id"] == expected


@pytest.mark.parametrize("length", [True, False])
def test_a_body_that_is_too_long_is_refused_and_torchserve_hears_nothing(opened, length):
    one = opened(max_body_bytes=1000)
    body = b"x" * 1001
    response = one.predict(content=body if length else iter([body[:500], body[500:]]))
    assert is_ours(response, 413, "payload_too_large")
    assert "1000 bytes" in response.json()["error"]
    assert one.torchserve.seen == []
    assert one.predict(content=body[:1000] if length else iter([body[:500], body[:500]])).status_code == 200
    assert len(one.torchserve.seen[0].body) == 1000
    assert one.torchserve.seen[0].headers["content-length"] == "1000"


def test_a_body_longer_than_the_buffer_arrives_whole(opened):
    one = opened(body_buffer_bytes=1024)
    body = os.urandom(300_000)
    assert one.predict(content=body).status_code == 200
    assert one.predict(content=iter([body[:1], body[1:]])).status_code == 200
    assert [seen.body for seen in one.torchserve.seen] == [body, body]


def test_a_body_of_unknown_length_can_be_refused(opened):
    one = opened(chunked=False)
    assert is_ours(one.predict(content=iter([b"{}"])), 411, "length_required")
    assert one.predict().status_code == 200
    assert len(one.torchserve.seen) == 1


def test_a_header_that_is_too_long_and_too_many_headers_are_refused(opened):
    one = opened(max_header_bytes=4096)
    assert is_ours(one.http.get("/v2", headers={"X": "a" * 5000}), 431, "header_too_large")
    assert is_ours(one.http.get("/v2", headers={f"X-{i}": "a" * 1000 for i in range(40)}), 431, "header_too_large")
    assert is_ours(one.http.get("/v2?" + "a" * 9000), 414, "uri_too_long")
    assert one.http.get("/v2", headers={"X": "a" * 3000}).status_code == 200


@pytest.mark.parametrize("status", [500, 507])
def test_a_prediction_whose_worker_died_is_sent_once_more(opened, status):
    one = opened()
    one.torchserve.answers.append(torchserves(status, "Worker died."))
    response = one.predict(content=b"the rows")
    assert response.status_code == 200
    assert [seen.body for seen in one.torchserve.seen] == [b"the rows", b"the rows"]
    one.torchserve.answers.extend([torchserves(status, "Worker died.")] * 2)
    response = one.predict()
    assert is_ours(response, *{500: (500, "internal_error"), 507: (503, "unavailable")}[status])
    assert len(one.torchserve.seen) == 4


def test_a_connection_that_breaks_is_tried_again_and_no_server_is_told(opened):
    one = opened(fresh=True)
    one.torchserve.close()
    response = one.predict()
    assert is_ours(response, 503, "unavailable")
    assert response.headers["retry-after"] == "1"


def test_no_retry_where_none_is_wanted(opened):
    one = opened(retry_timeout=0)
    one.torchserve.answers.append(torchserves(507, "Worker died."))
    one.torchserve.answers.append(torchserves(500, "Worker died."))
    assert is_ours(one.predict(), 503, "unavailable")
    assert is_ours(one.predict(), 500, "internal_error")
    assert len(one.torchserve.seen) == 2


def test_a_full_queue_is_told_at_once_and_never_asked_twice(opened):
    one = opened()
    one.torchserve.answers.append(torchserves(503, "Model has no worker to serve inference request."))
    response = one.predict()
    assert is_ours(response, 503, "unavailable")
    assert response.headers["retry-after"] == "1"
    assert len(one.torchserve.seen) == 1


def test_torchserves_own_errors_get_our_words_and_the_handlers_pass(opened):
    one = opened()
    one.torchserve.answers.append(torchserves(404, "Model not found: /models/secret"))
    assert is_ours(one.predict(), 404, "not_found")
    for status in (400, 406, 413, 415, 422):
        body = json.dumps({"error": f"ours {status}", "type": "x", "loc": ["instances", 3]}).encode()
        one.torchserve.answers.append(Answer(status, body))
        response = one.predict()
        assert (response.status_code, response.content) == (status, body)


def test_more_than_fit_are_refused_at_once(opened):
    one = opened(in_flight=2)
    hold = threading.Event()
    one.torchserve.answers.extend([Answer(wait=hold)] * 2)
    waiting = [threading.Thread(target=lambda: statuses.append(httpx.post(
        f"{one.door.url}/predictions/digits", content=b"{}", trust_env=False, timeout=20).status_code))
        for _ in range(2)]  # fmt: skip
    statuses: list[int] = []
    for thread in waiting:
        thread.start()
    assert eventually(lambda: len(one.torchserve.seen) == 2)
    start = time.monotonic()
    response = one.predict()
    assert time.monotonic() - start < 1
    assert is_ours(response, 503, "unavailable")
    assert response.headers["retry-after"] == "1"
    hold.set()
    for thread in waiting:
        thread.join()
    assert statuses == [200, 200]
    assert eventually(lambda: one.predict().status_code == 200)


def test_a_client_is_kept_to_its_rate_by_key_or_address(opened, known):
    one = opened(rate=1, burst=2, api_keys=str(known))
    alice = {"Authorization": "Bearer AliceAliceAliceAlice"}
    responses = [one.predict(headers=alice) for _ in range(6)]
    statuses = [response.status_code for response in responses]
    assert statuses[:3] == [200, 200, 200]
    assert set(statuses[3:]) == {429}
    assert is_ours(responses[-1], 429, "too_many_requests")
    assert responses[-1].headers["retry-after"] == "1"
    assert one.predict(headers={"X-Api-Key": "BobBobBobBobBobBob+/=="}).status_code == 200
    through_loopback = [httpx.post(f"{one.door.probe_url}/predictions/digits", content=b"{}") for _ in range(6)]
    assert {response.status_code for response in through_loopback} == {200}


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Authorization": "Bearer nobody"}, {"Authorization": "AliceAliceAliceAlice"}, {"X-Api-Key": ""},
        {"Authorization": "Basic AliceAliceAliceAlice"}, {"X-Api-Key": "aliceALICEaliceALICE"},
        {"X-Api-Key": "AliceAliceAliceAlice|AliceAliceAliceAlice"}, {"X-Api-Key": "|"}, {"X-Api-Key": "AliceAlice"},
        {"Authorization": "Bearer nobody", "X-Api-Key": "AliceAliceAliceAlice"},
    ],
)  # fmt: skip
def test_who_has_no_key_gets_nowhere_but_to_health_and_the_pages(opened, known, headers):
    one = opened(api_keys=str(known))
    response = one.predict(headers=headers)
    assert is_ours(response, 401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    for path in ("/v2/models", "/openapi.json", "/predictions/digits/1.0/openapi.json", "/no/such/path", "/METRICS"):
        assert is_ours(one.http.get(path, headers=headers), 401, "unauthorized")
    assert one.torchserve.seen == one.side.seen == []
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/", "/docs", "/console/app.js"):
        assert one.http.get(path, headers=headers).status_code == 200
    assert httpx.post(f"{one.door.probe_url}/predictions/digits", content=b"{}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer AliceAliceAliceAlice"}, {"Authorization": "bearer  AliceAliceAliceAlice"},
        {"X-Api-Key": "AliceAliceAliceAlice"}, {"Authorization": "Bearer BobBobBobBobBobBob+/=="},
    ],
)  # fmt: skip
def test_who_has_a_key_is_let_in_and_the_key_goes_no_further(opened, known, headers):
    one = opened(api_keys=str(known), access_log=True)
    assert one.predict(headers=headers).status_code == 200
    assert one.http.get("/v2/models", headers=headers).status_code == 200
    assert eventually(lambda: len(one.lines) >= 2)
    everything = json.dumps([seen.headers for seen in one.torchserve.seen + one.side.seen]) + "".join(one.lines)
    assert "AliceAlice" not in everything
    assert "BobBob" not in everything
    assert json.loads(one.lines[0])["key"] in ("alice", "bob")


def test_a_changed_file_of_keys_is_taken_and_a_broken_one_is_not(opened, keys, monkeypatch):
    monkeypatch.setattr("polyhead.serving.frontdoor.watch.SECONDS", 0.05)
    one = opened(fresh=True, api_keys=str(keys))
    alice, carol = {"X-Api-Key": "AliceAliceAliceAlice"}, {"X-Api-Key": "CarolCarolCarolCarol"}
    hold = threading.Event()
    one.torchserve.answers.append(Answer(wait=hold))
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(one.predict(headers=alice).status_code))
    thread.start()
    assert eventually(lambda: len(one.torchserve.seen) == 1)
    keys.write_text("carol CarolCarolCarolCarol\n")
    with httpx.Client(base_url=one.door.url, trust_env=False) as other:
        assert eventually(lambda: other.get("/v2/models", headers=carol).status_code == 200)
        assert eventually(lambda: other.get("/v2/models", headers=alice).status_code == 401)
        hold.set()  # a request that came before the change is answered
        thread.join()
        assert statuses == [200]
        keys.write_text("carol short\n")
        assert eventually(lambda: any("16 to 255" in line for line in one.lines))
        assert other.get("/v2/models", headers=carol).status_code == 200


def test_metrics_are_for_the_networks_that_are_named(opened):
    one = opened(metrics_from="10.0.0.0/8")
    assert is_ours(one.http.get("/metrics"), 403, "forbidden")
    assert one.http.get("/v2").status_code == 200
    assert httpx.get(f"{one.door.probe_url}/metrics").status_code == 200


def test_addresses_are_believed_from_trusted_proxies_alone(opened):
    trusting = opened(metrics_from="10.0.0.0/8", trusted_proxies="127.0.0.0/8")
    assert trusting.http.get("/metrics", headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 200
    assert trusting.http.get("/metrics", headers={"X-Forwarded-For": "10.1.2.3, 192.0.2.1"}).status_code == 403
    assert (
        opened(metrics_from="10.0.0.0/8").http.get("/metrics", headers={"X-Forwarded-For": "10.1.2.3"}).status_code
        == 403
    )


def test_the_page_can_be_left_out(opened):
    one = opened(console=False)
    for path in ("/", "/docs", "/console/app.js"):
        assert is_ours(one.http.get(path), 404, "not_found")
    assert one.side.seen == []


def test_the_access_log_is_json_without_queries(opened):
    one = opened(access_log=True)
    one.torchserve.answers.append(torchserves(507, "Worker died."))
    one.predict("/predictions/digits?secret=1", headers={"X-Request-Id": "abc", "User-Agent": 'a"\n'[:2]})
    one.http.get("/no/such?secret=2")
    assert eventually(lambda: len(one.lines) >= 2)
    first, second = (json.loads(line) for line in one.lines[:2])
    assert "secret" not in "".join(one.lines)
    assert {"request": "abc", "method": "POST", "path": "/predictions/digits", "status": 200}.items() <= first.items()
    assert first["upstream_status"] == "507 : 200"
    assert {
        "level": "info",
        "logger": "polyhead.frontdoor.access",
        "client": "127.0.0.1",
        "key": "",
    }.items() <= first.items()
    assert {"method": "GET", "path": "/no/such", "status": 404}.items() <= second.items()
    assert isinstance(first["seconds"], float)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nginxs_own_lines_are_told_and_bounded(opened, log_format):
    one = opened(fresh=True, log_format=log_format)
    one.torchserve.close()
    for _ in range(60):
        one.predict()
    assert eventually(lambda: len(one.lines) >= 10)
    assert len(one.lines) <= 60
    if log_format == "json":
        lines = [json.loads(line) for line in one.lines]
        assert {line["level"] for line in lines} <= {"error", "warning"}
        assert "connect() failed" in lines[0]["message"]
    else:
        assert one.lines[0].startswith("front door: connect() failed")


def test_what_nobody_else_may_read_nobody_else_may_read(opened, known):
    one = opened(api_keys=str(known))
    file = one.door.folder / "nginx.conf"
    assert "AliceAlice" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(one.door.folder.stat().st_mode) == 0o700


def test_quit_answers_what_was_accepted_and_takes_no_more(opened):
    one = opened(fresh=True)
    hold = threading.Event()
    one.torchserve.answers.append(Answer(wait=hold))
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(one.predict().status_code))
    thread.start()
    assert eventually(lambda: len(one.torchserve.seen) == 1)
    quitting = threading.Thread(target=lambda: statuses.append(one.door.quit(10)))
    quitting.start()

    def closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", one.door.port)) != 0

    assert eventually(closed)
    assert statuses == []
    hold.set()
    thread.join()
    quitting.join()
    assert statuses == [200, True]
    assert one.door.exit_code() == 0
    assert one.door.quit(1)


def test_quit_does_not_wait_for_ever(opened):
    one = opened(fresh=True)
    one.torchserve.answers.append(Answer(wait=threading.Event()))
    failures: list[Exception] = []

    def ask() -> None:
        try:
            one.predict()
        except httpx.HTTPError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert eventually(lambda: len(one.torchserve.seen) == 1)
    start = time.monotonic()
    assert not one.door.quit(0.5)
    assert time.monotonic() - start < 5
    assert one.door.exit_code() is not None
    thread.join()
    assert len(failures) == 1


def test_an_nginx_that_ends_is_noticed_and_leaves_no_process(opened):
    one = opened(fresh=True)
    assert one.door.exit_code() is None
    os.kill(one.door._process.pid, signal.SIGKILL)
    assert eventually(lambda: one.door.exit_code() == -signal.SIGKILL)
    one.door.kill()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", one.door.port)) != 0


def test_a_port_that_is_taken_and_a_file_that_is_not_there_are_told(nginx, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        door = FrontDoor(FrontDoorSettings(), "127.0.0.1", taken.getsockname()[1], 1, 2, tmp_path / "a")
        with pytest.raises(LaunchError, match="Address already in use"):
            door.start()
        assert door.exit_code() is not None
    settings = FrontDoorSettings(tls_certificate=str(tmp_path / "none.pem"), tls_key=str(tmp_path / "none.key"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(LaunchError, match="polyhead_front_tls_certificate"):
        FrontDoor(settings, "127.0.0.1", 0, 1, 2, tmp_path / "b").start()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_no_nginx_is_told_with_the_way_to_it(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(LaunchError, match="apt-get install nginx-light"):
        FrontDoor(FrontDoorSettings(), "127.0.0.1", 0, 1, 2, tmp_path)
