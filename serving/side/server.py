"""A small HTTP server on the loopback: bounded threads, bounded requests, bounded patience."""

from __future__ import annotations

import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from polyhead.serving.errors import InternalError, LaunchError, MalformedBody, PayloadTooLarge, RequestError
from polyhead.serving.side.exchange import Asked, Forbidden, LengthRequired, NotFound, Reply, Unavailable, refusal
from polyhead.serving.side.peer import owner

__all__ = ["SideServer"]

HOST = "127.0.0.1"
# A page of a stranger, whose name has been given this machine's address, has its browser say another one.
HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
CONNECTIONS = 64  # at a time; Prometheus, a proxy, a health check and a browser need a few
REQUEST_SECONDS = 10.0  # for a client to send one request, from its first byte to its last
ANSWER_SECONDS = 30.0  # for a client to take some of the answer
CLOSE_SECONDS = 5.0  # for the answers that are under way when the server closes
POLL_SECONDS = 0.05
BUSY = refusal(Unavailable(f"more than {CONNECTIONS} connections at a time: try again"))

logger = logging.getLogger(__name__)


class SideServer:
    """Answers requests until it is closed.

    Args:
        port: on the loopback; 0 takes any.
        answer: told of each request, in a thread of its connection.
        most_bytes: of a request's body.
        name: of its thread.

    Raises:
        LaunchError: the port cannot be bound.
    """

    def __init__(
        self, port: int, answer: Callable[[Asked], Reply], most_bytes: int = 65_536, name: str = "side server"
    ) -> None:
        try:
            self._server = _Server(port, answer, most_bytes)
        except OSError as error:
            raise LaunchError(
                f"port {port} on {HOST} cannot be bound ({error.strerror}): give another --port"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": POLL_SECONDS}, name=name, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Take no more requests, answer those that were taken. Safe to call again."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._server.answering and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, port: int, answer: Callable[[Asked], Reply], most_bytes: int) -> None:
        self.answer, self.most_bytes = answer, most_bytes
        self.answering = 0  # requests that are being answered
        self.lock = threading.Lock()
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__((HOST, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            head = f"HTTP/1.1 503 Busy\r\nContent-Type: {BUSY.content_type}\r\nContent-Length: {len(BUSY.body)}\r\n"
            request.settimeout(POLL_SECONDS)
            with suppress(OSError):  # it is gone
                request.sendall(f"{head}Retry-After: 1\r\nConnection: close\r\n\r\n".encode() + BUSY.body)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no news; anything else is in the log already."""


class _Patience(io.RawIOBase):
    """A socket's bytes until a deadline, however slowly they drip."""

    def __init__(self, connection: socket.socket) -> None:
        self.deadline = time.monotonic() + REQUEST_SECONDS
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._patience = _Patience(self.connection)
        self.rfile = io.BufferedReader(self._patience)

    def handle_one_request(self) -> None:
        self._patience.deadline = time.monotonic() + REQUEST_SECONDS
        super().handle_one_request()

    def _respond(self) -> None:
        with self.server.lock:
            self.server.answering += 1
        try:
            reply = self._reply()
            self.connection.settimeout(ANSWER_SECONDS)
            self._send(reply)
        finally:
            with self.server.lock:
                self.server.answering -= 1

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _respond  # noqa: N815 - http.server's

    def _reply(self) -> Reply:
        try:
            asked = self._asked()
        except RequestError as error:  # what follows on this connection cannot be told apart from the body
            self.close_connection = True
            return refusal(error)
        except TimeoutError:
            self.close_connection = True
            return Reply(HTTPStatus.REQUEST_TIMEOUT, b'{"error": "the body did not come in time", "type": "timeout"}\n')
        try:
            return self.server.answer(asked)
        except RequestError as error:
            return refusal(error)
        except Exception:
            logger.exception("%s %s failed", asked.method, asked.path)
            return refusal(InternalError("the server failed on this request and has logged it"))

    def _asked(self) -> Asked:
        path, _, query = self.path.partition("?")
        old, self.request_version = self.request_version == "HTTP/0.9", "HTTP/1.1"  # a refusal needs a head
        if old or not path.startswith("/"):
            raise NotFound("a request is METHOD /path HTTP/1.1")
        if "transfer-encoding" in self.headers:
            raise LengthRequired("a body in chunks is not read here: send Content-Length")
        lengths = self.headers.get_all("content-length", [])
        if len(lengths) > 1 or not all(length.isascii() and length.isdigit() for length in lengths):
            raise MalformedBody("Content-Length must be one number of bytes")
        size = int(lengths[0]) if lengths else 0
        if size > self.server.most_bytes:
            raise PayloadTooLarge(f"the body has {size} bytes, allowed are {self.server.most_bytes}")
        body = self.rfile.read(size) if size else b""
        if len(body) < size:
            raise MalformedBody(f"the body ended after {len(body)} of {size} bytes")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not HOSTS.fullmatch(headers.get("host", "")):
            raise Forbidden("the Host of a request must be 127.0.0.1 or localhost: this answers its own machine alone")
        return Asked(self.command, path, headers, body, query, self._owner)

    def _owner(self) -> int | None:
        return owner(self.client_address, self.connection.getsockname())

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            if name.lower() != "content-type":
                self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and reply.status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(reply.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, before there is a request: in JSON as everything else."""
        del explain
        self.close_connection = True
        said = message or HTTPStatus(code).phrase
        error = NotFound(f"the request cannot be read: {ascii(said)[1:-1]:.200}")
        self.request_version = "HTTP/1.1"
        self.command = self.command or ""
        self._send(Reply(code, refusal(error).body.replace(b"not_found", b"bad_request")))

    def version_string(self) -> str:
        """Of us, and not of Python."""
        return "polyhead"

    def log_message(self, *_: Any) -> None:
        """Nothing: what is asked every few seconds is no news."""
