from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import orjson
import pytest

from polyhead.serving.client import Client, ServerError
from polyhead.serving.errors import InternalError, PolyheadError, UnknownHead
from polyhead.serving.protocol.json import encode_error
from tests.freeports import free_ports


@dataclass
class Server:
    """Answers every request with one canned response, and keeps what it was asked."""

    url: str
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def _serve(body: bytes, status: int = 200, content_type: str = "application/json") -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.paths.append(self.path)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


ANSWERS = [
    {"color": {"label": "red", "score": 0.9, "index": 0}},
    {"color": {"label": "blue", "score": 0.8, "index": 2}},
]


def test_predict_sends_the_contract_and_returns_the_rows():
    with _serve(orjson.dumps({"predictions": ANSWERS})) as server, Client(server.url) as client:
        assert client.predict_json("mlp", [[1, 2], {"x": [3, 4]}], ["color"], {"top_k": 2}) == ANSWERS
    assert server.paths == ["/predictions/mlp"]
    assert server.headers[0]["content-type"] == "application/json"
    assert orjson.loads(server.bodies[0]) == {
        "instances": [[1, 2], {"x": [3, 4]}],
        "heads": ["color"],
        "options": {"top_k": 2},
    }


def test_what_is_not_asked_for_is_not_sent():
    with _serve(orjson.dumps({"predictions": ANSWERS})) as server, Client(server.url) as client:
        client.predict("mlp/1.0", ([1], [2]))
    assert server.paths == ["/predictions/mlp/1.0"]
    assert orjson.loads(server.bodies[0]) == {"instances": [[1], [2]]}


def test_an_empty_list_of_heads_is_not_all_of_them():
    with _serve(orjson.dumps({"predictions": ANSWERS})) as server, Client(server.url) as client:
        client.predict("mlp", [[1], [2]], heads=[])
    assert orjson.loads(server.bodies[0])["heads"] == []


def test_a_file_is_sent_as_it_is():
    data = bytes(range(256))
    with _serve(orjson.dumps(ANSWERS[0])) as server, Client(server.url + "/behind/") as client:
        assert client.predict_file_json("mlp", data, "image/png", ["color", "level"]) == ANSWERS[0]
        client.predict_file("mlp", data, "image/jpeg")
    assert server.paths == ["/behind/predictions/mlp"] * 2
    assert server.bodies == [data, data]
    assert server.headers[0]["content-type"] == "image/png"
    assert server.headers[0]["x-polyhead-heads"] == "color,level"
    assert server.headers[1]["content-type"] == "image/jpeg"
    assert "x-polyhead-heads" not in server.headers[1]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            422,
            encode_error(UnknownHead("head 'nose' is not in model mlp 1.0", ("heads", 0))),
            "mlp: 422: head 'nose' is not in model mlp 1.0 (at heads.0)",
        ),
        (
            422,
            orjson.dumps({"error": "no", "type": "invalid_instance", "loc": ["instances", 3, "x"]}),
            "mlp: 422: no (at instances.3.x)",
        ),
        (500, encode_error(InternalError("the server has logged it")), "mlp: 500: the server has logged it"),
        (
            404,
            b'{"code": 404, "type": "ModelNotFoundException", "message": "Model not found: mlp"}',
            "mlp: 404: Model not found: mlp",
        ),
        (503, b"<html>busy</html>", "mlp: 503: <html>busy</html>"),
        (502, b"x" * 5000, "mlp: 502: " + "x" * 200),
        (500, b"", "mlp: 500: "),
    ],
)
def test_an_error_is_told_with_status_and_place(status: int, body: bytes, message: str):
    with _serve(body, status) as server, Client(server.url, retries=0) as client:
        calls: list[Any] = [lambda: client.predict("mlp", [[1]]), lambda: client.predict_file("mlp", b"", "image/png")]
        for call in calls:
            with pytest.raises(ServerError) as caught:
                call()
            error = caught.value
            assert isinstance(error, PolyheadError)
            assert (str(error), error.status) == (message, status)
            assert error.body == (orjson.loads(body) if body.startswith(b"{") else {})


def test_a_refused_connection_is_told_with_what_to_do():
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with Client(url, retries=0) as client, pytest.raises(ServerError) as caught:
        client.predict("mlp", [[1]])
    error = caught.value
    assert str(error).startswith(f"no answer from {url} (")
    assert str(error).endswith("): is it running? polyhead serve BUNDLE")
    assert "refused" in str(error)
    assert (error.status, error.body) == (None, {})


def test_a_silent_server_is_told_of_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(ServerError) as caught:
            client.predict("mlp", [[1]])
    assert str(caught.value).startswith(f"no answer from {url} (timed out)")


def test_an_address_that_is_none_is_told_of():
    with Client("localhost-without-a-scheme") as client, pytest.raises(ServerError, match="no answer from localhost"):
        client.predict("mlp", [[1]])
