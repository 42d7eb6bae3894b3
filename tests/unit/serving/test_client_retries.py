"""The client beside a server that misbehaves: what is asked again, what is not, and for how long."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import numpy as np
import orjson
import pytest

from polyhead.serving.client import AsyncClient, Client, Refused, ServerError, Unavailable, Unreachable
from polyhead.serving.client.retrying import Attempts, Retrying
from tests.freeports import free_ports

ANSWER = orjson.dumps({"predictions": [{"color": {"label": "red", "score": 0.5, "index": 0}}]})
FAST = {"shortest": 0.001, "longest": 0.01}


def reply(body: bytes = ANSWER, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Server:
    """Does with each request in turn what its script says; the last of it again and again."""

    url: str
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        return {headers["x-request-id"] for headers, _ in self.requests}


@contextmanager
def scripted(*script: bytes | Callable[[socket.socket], None] | None) -> Iterator[Server]:
    """A server: bytes are sent, None closes the connection without a word, a function gets the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        stop = threading.Event()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as stream:
                    if stop.is_set():
                        return
                    head = iter(lambda: stream.readline().decode().strip(), "")
                    next(head)
                    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
                    body = stream.read(int(headers["content-length"]))
                    step = script[min(len(server.requests), len(script) - 1)]
                    server.requests.append((headers, body))
                    if callable(step):
                        step(connection)
                    elif step is not None:
                        connection.sendall(step)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


BUSY = reply(b'{"error": "busy"}', "503 Service Unavailable", "Connection: close")
FAILED = reply(
    b'{"error": "no", "type": "internal_error", "loc": []}', "500 Internal Server Error", "Connection: close"
)
HALF = reply(ANSWER[:20], length=len(ANSWER))
GOOD = reply(ANSWER, "200 OK", "Connection: close")


def ask(kind: str, url: str, **options: object):
    """One prediction by either client."""
    if kind == "sync":
        with Client(url, **options) as client:
            return client.predict("m", ["x"])

    async def run():
        async with AsyncClient(url, **options) as client:
            return await client.predict("m", ["x"])

    return asyncio.run(run())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
@pytest.mark.parametrize(
    "failure", [None, BUSY, FAILED, HALF, b"HTTP/1.1 200"], ids=["drop", "503", "500", "half", "cut"]
)
def test_a_prediction_that_failed_is_asked_again_under_its_id(kind, failure):
    with scripted(failure, failure, GOOD) as server:
        (row,) = ask(kind, server.url)
    assert row["color"].label == "red"
    assert len(server.requests) == 3
    assert len(server.ids) == 1
    assert len({body for _, body in server.requests}) == 1


@both
@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "413 Large", "422 Wrong", "429 Busy"])
def test_what_is_refused_is_not_asked_again(kind, status):
    body = orjson.dumps({"error": "no", "type": "invalid_instance", "loc": ["instances", 0]})
    with (
        scripted(reply(body, status, "Connection: close", "Retry-After: 0")) as server,
        pytest.raises(Refused) as found,
    ):
        ask(kind, server.url)
    assert len(server.requests) == 1
    error = found.value
    assert (error.status, error.type, error.loc) == (int(status[:3]), "invalid_instance", ("instances", 0))
    assert server.ids == {error.request_id}


@both
def test_there_are_so_many_attempts_and_no_more(kind):
    with scripted(BUSY) as server, pytest.raises(Unavailable, match="m: 503: busy"):
        ask(kind, server.url, retries=2)
    assert len(server.requests) == 3


@both
def test_retry_after_is_kept(kind):
    refusal = reply(b"", "503 Service Unavailable", "Connection: close", "Retry-After: 1")
    with scripted(refusal, GOOD) as server:
        start = time.monotonic()
        ask(kind, server.url)
    assert 1.0 <= time.monotonic() - start < 3


@both
def test_a_wait_beyond_the_deadline_is_not_begun(kind):
    refusal = reply(b"{}", "503 Service Unavailable", "Connection: close", "Retry-After: 30")
    start = time.monotonic()
    with scripted(refusal) as server, pytest.raises(Unavailable):
        ask(kind, server.url, deadline=5)
    assert time.monotonic() - start < 2
    assert len(server.requests) == 1


def drip(connection: socket.socket) -> None:
    """An answer of which a byte comes now and then, so that no single wait is long."""
    head, body = GOOD[: -len(ANSWER)], ANSWER
    try:
        connection.sendall(head)
        for byte in body:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    except OSError:  # the client has gone
        pass


@both
def test_the_deadline_holds_for_an_answer_that_never_ends(kind):
    with scripted(drip) as server:
        start = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            ask(kind, server.url, timeout=0.4)
        assert 0.35 < time.monotonic() - start < 1.5


@both
def test_an_attempt_that_hangs_is_given_up_and_asked_again(kind):
    with scripted(lambda _: time.sleep(0.5), GOOD) as server:
        (row,) = ask(kind, server.url, timeout=0.2, deadline=5)
    assert row["color"].index == 0
    assert len(server.requests) >= 2


@both
def test_a_server_that_comes_back_is_found(kind):
    address = "127.0.0.1", free_ports(1)[0]

    def come_back() -> None:
        time.sleep(0.2)
        with socket.create_server(address) as listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(GOOD)

    thread = threading.Thread(target=come_back)
    thread.start()
    (row,) = ask(kind, f"http://127.0.0.1:{address[1]}", retries=50)
    thread.join()
    assert row["color"].label == "red"


@both
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"predictions": []}', b'{"predictions": [3]}', b'{"a": 1}'])
def test_an_answer_that_is_none_of_polyheads_is_told_and_not_asked_again(kind, body):
    with scripted(reply(body, "200 OK", "Connection: close")) as server:
        with pytest.raises(ServerError, match="is no Polyhead server"):
            ask(kind, server.url)
        assert len(server.requests) == 1


@both
def test_an_answer_of_a_kind_unknown_here_is_told(kind):
    body = orjson.dumps({"predictions": [{"h": {"pose": 1}}]})
    with scripted(reply(body, "200 OK", "Connection: close")) as server, pytest.raises(ServerError, match="with pose"):
        ask(kind, server.url)


def echo(connection: socket.socket, rows: Sequence[object]) -> None:
    content = orjson.dumps({"predictions": [{"v": {"value": row, "unit": ""}} for row in rows]})
    connection.sendall(reply(content, "200 OK", "Connection: close"))


@both
@pytest.mark.parametrize("options", [{"chunk_rows": 3}, {"chunk_bytes": 6}, {"chunk_rows": 1}, {}])
def test_a_large_job_is_cut_and_put_together_in_order(kind, options):
    def step(connection: socket.socket) -> None:
        echo(connection, orjson.loads(server.requests[-1][1])["instances"])

    rows = list(range(10))
    with scripted(step) as server:
        if kind == "sync":
            with Client(server.url, **options) as client:
                found = client.predict("m", rows, request_id="job")
        else:

            async def run():
                async with AsyncClient(server.url, **options) as client:
                    return await client.predict("m", rows, request_id="job")

            found = asyncio.run(run())
    assert [row["v"].value for row in found] == rows
    sizes = {"chunk_rows": -(-10 // options.get("chunk_rows", 10)), "chunk_bytes": 4}
    assert len(server.requests) == sizes[next(iter(options), "chunk_rows")]
    assert "job" in server.ids
    assert len(server.ids) == len(server.requests)


def test_an_array_goes_as_a_npy_file_in_parts():
    array = np.arange(20, dtype=np.float32).reshape(5, 4)
    received = []

    def step(connection: socket.socket) -> None:
        headers, body = server.requests[-1]
        assert headers["content-type"] == "application/x-npy"
        assert headers["x-polyhead-heads"] == "v,w"
        assert orjson.loads(headers["x-polyhead-options"]) == {"top_k": 2}
        received.append(np.load(io.BytesIO(body), allow_pickle=False))
        echo(connection, received[-1][:, 0].tolist())

    with scripted(step) as server, Client(server.url, chunk_bytes=40) as client:
        found = client.predict("m", array, ["v", "w"], {"top_k": 2})
        alike = client.predict("m", list(array), ["v", "w"], {"top_k": 2})
    assert [len(part) for part in received] == [2, 2, 1] * 2
    assert np.array_equal(np.concatenate(received[:3]), array)
    assert [row["v"].value for row in found] == array[:, 0].tolist()
    assert found == alike


def test_the_row_that_is_refused_is_counted_over_the_whole_job():
    def step(connection: socket.socket) -> None:
        rows = orjson.loads(server.requests[-1][1])["instances"]
        if 7 in rows:
            body = orjson.dumps({"error": "no", "type": "invalid_instance", "loc": ["instances", rows.index(7), "x"]})
            connection.sendall(reply(body, "422 Unprocessable Entity", "Connection: close"))
        else:
            echo(connection, rows)

    message = r"\(at instances.7.x\)"
    with (
        scripted(step) as server,
        Client(server.url, chunk_rows=3) as client,
        pytest.raises(Refused, match=message) as found,
    ):
        client.predict("m", list(range(10)))
    assert found.value.loc == ("instances", 7, "x")


def test_no_rows_are_no_request():
    with Client("http://127.0.0.1:9") as client:
        assert client.predict("m", []) == client.predict("m", np.zeros((0, 4), np.float32)) == []


@pytest.mark.parametrize("options", [{"retries": -1}, {"chunk_rows": 0}, {"chunk_bytes": 0}])
def test_impossible_arguments_are_refused(options):
    with pytest.raises(ValueError, match="give"):
        Client("http://127.0.0.1:9", **options)


def test_waits_are_drawn_from_a_bound_that_doubles():
    bounds = []
    for seed in range(200):
        attempts = Attempts(Retrying(1000, 4, shortest=0.1, longest=0.4))
        waits = [attempts.pause(httpx.ConnectError(str(seed))) for _ in range(5)]
        assert waits[4] is None
        bounds.append(waits[:4])
    highest = np.max(bounds, axis=0)
    assert np.all(highest <= [0.1, 0.2, 0.4, 0.4])
    assert np.all(highest > [0.09, 0.18, 0.36, 0.36]), "drawn from all of it"
    assert np.all(np.min(bounds, axis=0) < [0.01, 0.02, 0.04, 0.04]), "from zero on"


def test_retry_after_may_be_a_date():
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    pause = Attempts(Retrying(60, 3, **FAST)).pause(httpx.Response(503, headers={"Retry-After": when}))
    assert pause == pytest.approx(20, abs=2)
    for nonsense in ("soon", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"):
        attempts = Attempts(Retrying(60, 3, **FAST))
        assert attempts.pause(httpx.Response(503, headers={"Retry-After": nonsense})) <= 0.01


@pytest.mark.parametrize(
    "error", [httpx.UnsupportedProtocol("x"), httpx.InvalidURL("x"), httpx.LocalProtocolError("x")]
)
def test_a_mistake_of_the_callers_is_not_tried_twice(error):
    assert Attempts(Retrying(60, 3)).pause(error) is None
