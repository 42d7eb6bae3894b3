"""What one client, one broken process or one full disk must not do to the others."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from polyhead.serving.frontdoor.door import FrontDoor
from polyhead.serving.frontdoor.log import cleaned
from polyhead.serving.frontdoor.routes import sent_enough
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from tests.unit.serving.frontdoor.test_door import eventually, is_ours
from tests.unit.serving.frontdoor.upstream import Answer, Upstream, raw, torchserves

ADDRESS = "127.0.0.2"  # of the client that takes more than its share
HEALTH = "/v2/health/live"


def ask(one, path: str = "/predictions/digits", address: str = "127.0.0.1") -> int:
    """The status of one request, on a connection of its own."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=20) as http:
        method = "POST" if path.startswith("/predictions") else "GET"
        return http.request(method, f"{one.door.url}{path}").status_code


@pytest.mark.parametrize("chunked", [True, False])
def test_a_document_is_asked_for_without_a_body_of_unknown_length(opened, chunked):
    one = opened(chunked=chunked, max_body_bytes=1_000_000)
    path = "/predictions/digits/1.0/openapi.json"
    assert is_ours(one.http.request("GET", path, content=iter([b"x" * 100_000] * 20)), 411, "length_required")
    assert is_ours(one.http.request("GET", path, content=b"x" * 9000), 413, "payload_too_large")
    assert one.torchserve.seen == []
    assert one.http.get(path).status_code == 200


def test_slow_readers_of_one_address_do_not_take_all_that_torchserve_may_have(opened):
    one = opened(in_flight=4, connections=2)
    one.torchserve.answers.extend([Answer(body=b"x" * (8 << 20))] * 2)
    slow = []
    for _ in range(2):  # their answers fit no buffer, and they do not read
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.bind((ADDRESS, 0))
        client.connect(("127.0.0.1", one.door.port))
        client.sendall(b"POST /predictions/digits HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        slow.append(client)
    assert eventually(lambda: len(one.torchserve.seen) == 2)
    assert ask(one, address=ADDRESS) == 429
    assert [ask(one) for _ in range(4)] == [200] * 4
    for client in slow:
        client.close()


def test_what_the_side_server_tells_is_bounded_too_and_health_is_told_meanwhile(opened):
    one = opened(connections=1)
    hold = threading.Event()
    one.side.answers.append(Answer(wait=hold))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, one, "/v2/models")
        assert eventually(lambda: len(one.side.seen) == 1)
        paths = ["/v2/models", "/metrics", "/openapi.json", "/console/app.js", HEALTH]
        assert [ask(one, path) for path in paths] == [429, 429, 429, 429, 200]
        hold.set()
        assert first.result() == 200


def test_the_rate_holds_for_everything_but_health(opened):
    one = opened(rate=1, burst=1)
    assert 429 in {ask(one, "/v2/models") for _ in range(4)}
    assert {ask(one, HEALTH) for _ in range(10)} == {200}


def test_health_is_open_to_all_and_so_bounded_for_each(opened):
    one = opened(fresh=True)
    hold = threading.Event()
    one.side.answers.extend([Answer(wait=hold)] * 64)
    waiting = [socket.create_connection(("127.0.0.1", one.door.port), timeout=10) for _ in range(64)]
    for client in waiting:
        client.sendall(f"GET {HEALTH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert eventually(lambda: len(one.side.seen) == 64)
    assert ask(one, HEALTH) == 429
    assert ask(one, HEALTH, ADDRESS) == 200
    hold.set()
    for client in waiting:
        with client:
            assert client.recv(12) == b"HTTP/1.1 200"


def test_an_address_of_ipv6_is_counted_by_its_network(opened):
    one = opened(rate=1, burst=1, trusted_proxies="127.0.0.0/8")

    def status(address: str) -> int:
        return one.http.get("/v2/models", headers={"X-Forwarded-For": address}).status_code

    assert 429 in {status(f"2001:db8::{host:x}") for host in range(1, 7)}
    assert status("2001:db8:0:1::1") == 200
    assert {status(f"192.0.2.{host}") for host in range(1, 7)} == {200}


def test_a_door_on_every_address_of_ipv6_has_those_of_ipv4_too(nginx, tmp_path):
    torchserve, side = Upstream(), Upstream()
    door = FrontDoor(FrontDoorSettings(), "::", 0, torchserve.port, side.port, tmp_path / "door")
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        door.start()
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{door.port}/v2").status_code == 200
    finally:
        door.kill()
        torchserve.close()
        side.close()


def test_a_worker_of_nginx_that_dies_leaves_no_room_taken(opened):
    one = opened(fresh=True, in_flight=2, connections=2)
    hold = threading.Event()
    one.torchserve.answers.extend([Answer(wait=hold)] * 2)
    with ThreadPoolExecutor(2) as pool:
        lost = [pool.submit(ask, one) for _ in range(2)]
        assert eventually(lambda: len(one.torchserve.seen) == 2)
        for worker in psutil.Process(one.door._process.pid).children():
            os.kill(worker.pid, signal.SIGKILL)
        assert all(isinstance(each.exception(), httpx.HTTPError) for each in lost)
    hold.set()
    # The worker that stood in until the reload may still take one of the next; then all have room again.
    assert eventually(lambda: [ask(one) for _ in range(4)] == [200] * 4, 5), one.lines
    assert one.door.exit_code() is None


def test_a_key_that_was_taken_back_is_tried_again_where_the_disk_was_full(opened, keys, monkeypatch):
    monkeypatch.setattr("polyhead.serving.frontdoor.watch.SECONDS", 0.05)
    one = opened(fresh=True, api_keys=str(keys))
    in_the_way = one.door.folder / "candidate.new"  # a write fails, as it would with no space left
    in_the_way.mkdir()
    keys.write_text("carol CarolCarolCarolCarol\n")
    assert eventually(lambda: any("tries again" in line for line in one.lines))
    alice = {"X-Api-Key": "AliceAliceAliceAlice"}
    assert one.http.get("/v2/models", headers=alice).status_code == 200
    in_the_way.rmdir()
    assert eventually(lambda: httpx.get(f"{one.door.url}/v2/models", headers=alice).status_code == 401)


VERSIONED = ["/predictions/digits/1.0", "/v2/models/digits/versions/1.0/infer"]
BARE = ["/predictions/digits", "/v1/models/digits:predict", "/v2/models/digits/infer"]
OTHERS = ["/predictions/digits/1.00", "/predictions/digits/1x0", "/predictions/wine", "/v2/models/wine/infer"]


@pytest.mark.parametrize(
    ("titles", "gone", "there"),
    [
        (["digits/1.0"], VERSIONED, BARE + OTHERS),
        (["digits/1.0", "digits"], VERSIONED + BARE, OTHERS),
        ([], [], VERSIONED + BARE + OTHERS),
    ],
)
def test_a_version_that_is_refused_gets_nothing_new_and_no_connection_is_closed(opened, titles, gone, there):
    one = opened()
    with socket.create_connection(("127.0.0.1", one.door.port), timeout=10) as kept:

        def status(path: str, method: str = "POST") -> int:
            kept.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                head += kept.recv(65536)
            head, _, body = head.partition(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
            while len(body) < length:
                body += kept.recv(65536)
            return int(head.split()[1])

        assert status(VERSIONED[0]) == 200
        one.door.refuse(titles)
        try:
            found = {path: status(path) for path in VERSIONED + BARE + OTHERS}
            assert found == dict.fromkeys(gone, 404) | dict.fromkeys(there, 200)
            document = "/predictions/digits/1.0/openapi.json"
            assert status(document, "GET") == (404 if "digits/1.0" in titles else 200)
        finally:
            one.door.refuse([])
        assert status(VERSIONED[0]) == 200


def test_a_request_is_sent_twice_and_no_more(opened):
    one = opened()
    one.torchserve.answers.extend([torchserves(500, "Worker died."), torchserves(507, "Worker died.")])
    assert is_ours(one.predict(), 503, "unavailable")
    assert len(one.torchserve.seen) == 2


def test_a_request_that_killed_its_worker_late_is_not_sent_again(opened):
    one = opened(retry_timeout=1)
    hold = threading.Event()
    late = torchserves(507, "Worker died.")
    one.torchserve.answers.append(Answer(late.status, late.body, wait=hold))
    threading.Timer(1.2, hold.set).start()
    assert is_ours(one.predict(), 503, "unavailable")
    assert len(one.torchserve.seen) == 1


@pytest.mark.parametrize("timeout", [1, 9, 10, 19, 75, 99, 100, 600])
def test_how_long_a_first_answer_took_is_compared_as_a_number(timeout):
    pattern = re.findall(r'"~([^"]+)" 1;', sent_enough(FrontDoorSettings(retry_timeout=timeout)))[-1]
    found = [seconds for seconds in range(1200) if re.search(pattern, f"507|{seconds}.123")]
    assert found == list(range(timeout, 1200))


def test_the_log_holds_nothing_that_a_client_wrote_beside_the_path(opened):
    one = opened(fresh=True)
    one.torchserve.close()
    head = b"POST /predictions/digits?secret=hunter2 HTTP/1.1\r\nHost: x\r\nReferer: http://a/?hunter2=\x1b[2J\r\n"
    raw(one.door.port, head + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert eventually(lambda: any("connect() failed" in line for line in one.lines))
    assert "POST /predictions/digits" in "".join(one.lines)
    assert not [line for line in one.lines if "hunter2" in line or not line.isprintable()]
    assert (
        cleaned('a, request: "GET /x?q=, host: HTTP/1.1", host: "x", referrer: "y"')
        == 'a, request: "GET /x host: HTTP/1.1"'
    )


def test_a_temporary_directory_may_have_a_blank_in_its_name(nginx, tmp_path, monkeypatch):
    (tmp_path / "two words").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "two words"))
    torchserve, side = Upstream(), Upstream()
    door = FrontDoor(
        FrontDoorSettings(), "127.0.0.1", 0, torchserve.port, side.port, tmp_path / "two words" / "the door"
    )
    assert door.probe_port == 0  # chosen when it starts, not while models load
    try:
        door.start()
        assert httpx.get(f"{door.probe_url}/v2").status_code == 200
        assert "worker_shutdown_timeout 600s;" in (door.folder / "nginx.conf").read_text()
    finally:
        door.kill()
        torchserve.close()
        side.close()


def test_a_header_of_ours_comes_once(opened):
    one = opened()
    headers = {"X-Content-Type-Options": "nosniff"}
    one.side.answers.append(Answer(headers=headers))
    one.torchserve.answers.append(Answer(headers=headers))
    for response in (one.http.get("/v2"), one.predict()):
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]
