"""The small server itself: what it reads, what it refuses, and that nobody can hold it up."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.side import server as module
from polyhead.serving.side.exchange import Asked, NotFound, Reply, json_reply
from polyhead.serving.side.peer import owner
from polyhead.serving.side.server import CONNECTIONS, SideServer

NOBODY = 65534
SLOW = threading.Event()


def answer(asked: Asked) -> Reply:
    if asked.path == "/broken":
        raise ValueError("a secret")
    if asked.path == "/slow":
        SLOW.set()
        time.sleep(0.5)
    if asked.path == "/whose":
        return json_reply({"owner": asked.owner()})
    if asked.path == "/missing":
        raise NotFound("there is nothing here")
    return json_reply({"method": asked.method, "path": asked.path, "query": asked.query, "body": asked.body.decode()})


@pytest.fixture(scope="module")
def side() -> Iterator[SideServer]:
    with SideServer(0, answer, most_bytes=100) as made:
        yield made


def raw(side: SideServer, request: bytes, end: bool = True) -> bytes:
    """What comes back for some bytes, until the server closes."""
    address = side.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=15) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def status(answered: bytes) -> int:
    return int(answered.split(b" ", 2)[1])


def test_a_connection_is_kept_and_head_has_no_body(side):
    with httpx.Client(base_url=side.url, trust_env=False) as client:
        assert client.get("/a?b=c").json() == {"method": "GET", "path": "/a", "query": "b=c", "body": ""}
        head = client.head("/a")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["Content-Length"]) > 10
        assert client.post("/x", content="hello").json()["body"] == "hello"
        assert client.get("/a").headers["Server"] == "polyhead"


def test_failures_are_ours_and_tell_nothing_of_the_inside(side, caplog):
    missing = httpx.get(f"{side.url}/missing", trust_env=False)
    assert (missing.status_code, missing.json()["type"]) == (404, "not_found")
    broken = httpx.get(f"{side.url}/broken", trust_env=False)
    assert broken.status_code == 500
    assert "secret" not in broken.text
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nshort", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"nonsense\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    ],
)
def test_what_cannot_be_read_is_refused_in_json_and_the_connection_closed(side, request_: bytes, wanted: int):
    answered = raw(side, request_)
    head, _, body = answered.partition(b"\r\n\r\n")
    assert status(answered) == wanted, answered
    assert json.loads(body)["error"]
    assert b"Connection: close" in head
    assert answered.count(b"HTTP/1.1 ") == 1, "nothing behind it was taken for a request"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost:x"])
def test_a_name_that_a_stranger_gave_this_machine_is_refused(side, host: str):
    answered = raw(side, f"GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert status(answered) == 403
    assert b"answers its own machine alone" in answered


def test_a_request_without_a_host_is_refused_and_every_name_of_the_loopback_is_good(side):
    assert status(raw(side, b"GET /a HTTP/1.0\r\n\r\n")) == 403
    for host in ("127.0.0.1", "localhost:8082", "LOCALHOST", "[::1]:1"):
        assert status(raw(side, f"GET /a HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())) == 200


def test_whoever_asks_is_known_by_the_kernel(side):
    def whose() -> int:
        return httpx.get(f"{side.url}/whose", trust_env=False).json()["owner"]

    own = os.geteuid()
    assert whose() == own
    assert owner(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    if own == 0:
        os.seteuid(NOBODY)
        try:
            assert whose() == NOBODY
        finally:
            os.seteuid(own)


def test_a_client_that_drips_is_given_up(side, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.4)
    address = side.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        closed = False
        while not closed and time.monotonic() - began < 8:
            try:
                connection.sendall(b"A: b\r\n")
                time.sleep(0.1)
                connection.settimeout(0.01)
                closed = connection.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
    assert closed
    assert time.monotonic() - began < 3


def test_more_connections_than_there_are_threads_are_told_to_come_again(side):
    address = side.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection((address[0], int(address[1])), timeout=10))
        deadline = time.monotonic() + 10
        refused = 0
        while refused != 503 and time.monotonic() < deadline:
            refused = httpx.get(f"{side.url}/a", trust_env=False).status_code
        assert refused == 503
    deadline = time.monotonic() + 10
    while httpx.get(f"{side.url}/a", trust_env=False).status_code != 200:
        assert time.monotonic() < deadline


def test_what_was_asked_before_the_end_is_answered():
    side = SideServer(0, answer)
    found = []
    SLOW.clear()
    client = threading.Thread(target=lambda: found.append(httpx.get(f"{side.url}/slow", trust_env=False)))
    client.start()
    assert SLOW.wait(10)
    side.close()
    client.join(10)
    assert found[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(side.url, trust_env=False)


def test_a_port_in_use_is_told(side):
    port = int(side.url.rpartition(":")[2])
    with pytest.raises(LaunchError, match=f"port {port} on 127.0.0.1 cannot be bound"):
        SideServer(port, answer)
