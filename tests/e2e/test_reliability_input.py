"""Input that is meant to hurt: reliability tests 9 (malformed tensors), 11 (oversize bodies) and 16 (URLs)."""

from __future__ import annotations

import base64
import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson
import pytest

from tests.server import Running

ROW = [float(i) for i in range(12)]
OCTETS, JSON, NPY = "application/octet-stream", "application/json", "application/x-npy"
MB = 1_000_000
ROUNDS = 12
LIMIT = 40 * 1024 * 1024  # max_request_size as shipped


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def tensor(shape: object, data: object = None, datatype: object = "FP32", name: object = "measurements") -> bytes:
    return orjson.dumps(
        {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": ROW if data is None else data}]}
    )


# Every one of them is refused with a 4xx of ours, whatever reads it.
TENSORS = {
    "negative dimension": tensor([-1, 12]),
    "both negative": tensor([-1, -12]),
    "zero rows": tensor([0, 12], []),
    "overflowing product": b'{"inputs": [{"name": "measurements", "shape": [4294967296, 4294967296, 12], '
    b'"datatype": "FP32", "data": [1]}]}',
    "beyond 64 bits": b'{"inputs": [{"name": "measurements", "shape": [99999999999999999999, 12], "datatype": "FP32", '
    b'"data": [1]}]}',
    "a fraction": tensor([1.5, 12]),
    "true": tensor([True, 12]),
    "no list": tensor("[1,12]"),
    "more data than shape": tensor([1, 12], ROW * 2),
    "less data than shape": tensor([2, 12]),
    "another rank": tensor([12]),
    "another shape": tensor([1, 3, 4]),
    "a wrong dtype": tensor([1, 12], ["x"] * 12, "BYTES"),
    "an unknown dtype": tensor([1, 12], None, "FP999"),
    "no dtype": tensor([1, 12], None, None),
    "an unknown input": tensor([1, 12], None, "FP32", "colour"),
    "a NUL in a name": tensor([1, 12], None, "FP32", "measurements\0"),
    "a ragged list": tensor([2, 12], [ROW, ROW[:-1]]),
}
BODIES = {
    "huge number": (JSON, b'{"instances": [[' + b"9" * 400 + b", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]}"),
    "huge exponent": (JSON, b'{"instances": [[1e400, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]}'),
    "a raw NUL": (JSON, b'{"instances": [[1\0]]}'),
    "NULs alone": (JSON, b"\0" * 100),
    "a NUL in a head": (JSON, b'{"instances": [[1]], "heads": ["cultivar\\u0000"]}'),
    "a lone surrogate": (JSON, b'{"instances": [["\\ud800"]]}'),
    "deep lists": (JSON, b'{"instances": ' + b"[" * 100_000),
    "deep objects": (JSON, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep and closed": (JSON, b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}"),
    "invalid UTF-8 in a key": (JSON, b'{"inst\xc3\x28ances": []}'),
    "overlong UTF-8": (JSON, b'{"instances": "\xc0\x80"}'),
    "UTF-16": (JSON, '{"instances": []}'.encode("utf-16")),
    "a byte order mark alone": (JSON, b"\xef\xbb\xbf"),
    "an empty body": (JSON, b""),
    "a string for rows": (JSON, b'{"instances": "12"}'),
    "an object for a row": (JSON, orjson.dumps({"instances": [{"measurements": {"0": 1.0}}]})),
    "numbers as strings": (JSON, orjson.dumps({"instances": [[str(value) for value in ROW]]})),
    "npy: negative shape": (NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 12), }\n", b"\0" * 48)),
    "npy: huge shape": (NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 30 + ", 12), }\n")),
    "npy: a pickle": (
        NPY,
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"cos\nsystem\n(S'id'\ntR."),
    ),
    "npy: code for a header": (NPY, npy("__import__('os').abort()\n")),
    "npy: cut off": (NPY, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 12), }\n", b"\0" * 47)),
    "npy: a header beyond the body": (NPY, b"\x93NUMPY\x01\x00\xff\xff{"),
    "arrow: noise": ("application/vnd.apache.arrow.stream", np.random.default_rng(0).bytes(3000)),
    "arrow: a huge length": ("application/vnd.apache.arrow.stream", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * 64),
    "octets: one too many": (OCTETS, b"\0" * 49),
    "octets: a million": (OCTETS, b"\0" * MB),
}


@contextmanager
def unharmed(running: Running) -> Iterator[None]:
    """The same worker answers as before."""

    def worker() -> tuple[object, bytes]:
        described = httpx.get(f"{running.management}/models/wine", params={"customized": "true"}, trust_env=False)
        answer = running.predict("wine", {"instances": [ROW]})
        assert answer.status_code == 200
        return described.json()[0]["customizedMetadata"]["pid"], answer.content

    before = worker()
    yield
    assert worker() == before


def test_malformed_tensors_are_refused_and_the_worker_lives(server):
    with unharmed(server):
        for name, body in TENSORS.items():
            for path in ("/v2/models/wine/infer", "/predictions/wine"):
                require_refused(server.http.post(path, content=body, headers={"Content-Type": JSON}), name)


def test_malformed_bodies_are_refused_and_the_worker_lives(server):
    with unharmed(server):
        for name, (media_type, body) in BODIES.items():
            require_refused(
                server.http.post("/predictions/wine", content=body, headers={"Content-Type": media_type}), name
            )


def require_refused(response: httpx.Response, name: str) -> None:
    assert 400 <= response.status_code < 500, (name, response.status_code, response.text[:200])
    content = response.json()
    assert set(content) == {"error", "type", "loc"}, (name, content)
    assert len(response.content) < 2000, name


@pytest.mark.parametrize("length", ["-1", "0", "1", "99999999999999999999", "12x", ""])
def test_lengths_of_binary_tensors_that_lie_are_refused(server, length):
    headers = {"Content-Type": OCTETS, "Inference-Header-Content-Length": length}
    with unharmed(server):
        response = server.http.post("/v2/models/wine/infer", content=tensor([1, 12]) + b"\0" * 48, headers=headers)
        require_refused(response, length)


def test_of_a_key_that_stands_twice_the_last_one_counts(server):
    """As every JSON parser of ours has it: nothing is mixed of both."""
    body = b'{"instances": [["x"]], "heads": ["cultivar"], "instances": [%b], "heads": ["alcohol"]}' % orjson.dumps(ROW)
    response = server.http.post("/predictions/wine", content=body, headers={"Content-Type": JSON})
    assert response.json() == server.predict("wine", {"instances": [ROW], "heads": ["alcohol"]}).json()


def connect(running: Running) -> socket.socket:
    address = urlsplit(running.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def head(length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST /predictions/digits HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{framing}\r\n\r\n".encode()


@pytest.mark.parametrize("length", [LIMIT + 1, 10**10, 2**62])
def test_a_body_that_says_it_is_too_large_is_413_before_it_is_sent(server, length):
    with connect(server) as client:
        start = time.perf_counter()
        client.sendall(head(length))
        assert client.recv(4096).startswith(b"HTTP/1.1 413")
        assert time.perf_counter() - start < 2


def send_without_end(running: Running) -> bytes:
    """The answer to a body in chunks that never ends; nothing where it was lost in the closing of the connection."""
    chunk = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
    with connect(running) as client:
        client.sendall(head(None))
        try:
            for _ in range(10 * LIMIT // 65536):
                client.sendall(chunk)
        except OSError:
            pass  # the server has answered, and closed
        else:
            raise AssertionError("the server took ten times what it may")
        try:
            return client.recv(4096)
        except OSError:  # reset: the answer went out before our last chunk came in
            return b""


def test_bodies_without_end_are_cut_off_and_take_no_memory(server):
    family = [process for process in server.family() if process.is_running()]
    for _ in range(6):  # Java's heap grows to what it likes to have
        send_without_end(server)
    before = {process.pid: process.memory_info().rss for process in family}
    with unharmed(server):
        for _ in range(ROUNDS):
            answer = send_without_end(server)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
            assert server.http.post("/predictions/digits", content=b"\0" * (LIMIT + 1)).status_code == 413
    for process in family:
        grown = process.memory_info().rss - before[process.pid]
        assert grown < ROUNDS * LIMIT // 4, f"{process.name()} grew by {grown} bytes"


@contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that somebody may connect to, and what those who did sent."""
    heard: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.settimeout(1)
                    heard.append(connection.recv(100))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        host, port = server.getsockname()
        yield f"{host}:{port}", heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_no_url_in_a_request_is_ever_fetched(server):
    with listening() as (address, heard):
        urls = [f"http://{address}/a.png", f"https://{address}/a.mar", f"ftp://{address}/a", f"//{address}/a"]
        for url in urls:
            image = {"b64": base64.b64encode(url.encode()).decode()}
            for instance in (url, {"image": url}, {"image": {"url": url}}, {"image": {"b64": url}}, {"image": image}):
                assert server.predict("digits", {"instances": [instance]}).status_code >= 400
            body = {"instances": [ROW], "url": url, "model_url": url, "callback": url}
            assert server.predict("wine", body).status_code >= 400
            for media_type in ("text/uri-list", "message/external-body", "image/png", "text/plain", OCTETS):
                headers = {"Content-Type": media_type, "X-Forwarded-Host": address, "Referer": url, "Location": url}
                assert server.http.post("/predictions/digits", content=url.encode(), headers=headers).status_code >= 400
            form = {"body": ("a.png", io.BytesIO(url.encode()), "text/uri-list"), "url": ("", url)}
            assert server.http.post("/predictions/digits", files=form).status_code >= 400
            outputs = [{"name": "alcohol", "parameters": {"url": url}}]
            server.http.post("/v2/models/wine/infer", json={"id": url, "inputs": [], "outputs": outputs})
            for query in ("/invocations?model_name=wine&url=", "/wine/predict?url="):
                server.http.post(query + url, content=url.encode())
            # The management API: only this machine reaches it, and even so it fetches nothing.
            for path in ("/models", "/workflows"):
                answer = httpx.post(
                    f"{server.management}{path}", params={"url": url, "model_name": "x"}, trust_env=False
                )
                assert answer.status_code >= 400, (path, answer.text)
        time.sleep(0.5)
        assert heard == []
        # The listener does hear those who come.
        with socket.create_connection(tuple(address.split(":"))) as client:  # type: ignore[arg-type]
            client.sendall(b"hello")
        deadline = time.monotonic() + 5
        while not heard and time.monotonic() < deadline:
            time.sleep(0.02)
        assert heard == [b"hello"]
