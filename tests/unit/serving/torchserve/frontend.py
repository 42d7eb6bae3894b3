"""TorchServe's front end, as far as its protocol goes: messages written as its ModelRequestEncoder writes them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

UUID = "3f2b8c1e-{:04d}-4a6d-9e57-0c1d2e3f4a5b"
CLIENT = {  # in the order of Java's map
    "Accept": "*/*",
    "Connection": "keep-alive",
    "User-Agent": "bench/1.0",
    "Host": "127.0.0.1:8080",
    "url_path": "",
    "explain": "False",
    "Content-Length": "3072",
    "Content-Type": "application/octet-stream",
}


@dataclass(frozen=True)
class Part:
    """One parameter of a request."""

    name: str
    content_type: str
    value: bytes


@dataclass(frozen=True)
class Sent:
    """One request as the front end passes it on."""

    identity: str
    headers: Sequence[tuple[str, str]] = tuple(CLIENT.items())
    parts: Sequence[Part] = field(default_factory=tuple)


@dataclass(frozen=True)
class Answered:
    """One answer as the front end reads it."""

    identity: str
    content_type: str
    status: int
    phrase: str
    headers: Mapping[str, str]
    body: bytes


def posted(number: int, body: bytes, content_type: str = "application/octet-stream", /, **headers: str) -> Sent:
    """A request with a whole body."""
    return Sent(UUID.format(number), tuple({**CLIENT, **headers}.items()), (Part("body", content_type, body),))


def predict_message(requests: Iterable[Sent]) -> bytes:
    """A batch."""
    return b"I" + b"".join(map(_request, requests)) + END


def load_message(name: str, folder: str, batch: int, handler: str, gpu: int = -1, envelope: str = "") -> bytes:
    """The message that a worker gets first."""
    start = b"L" + _text(name) + _text(folder) + _int(batch) + _text(handler)
    return start + _int(gpu) + _text(envelope) + b"\x01"


class Connection:
    """The front end's side of a connection to a worker."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def send(self, message: bytes) -> None:
        self._connection.sendall(message)

    def receive(self) -> tuple[int, str, list[Answered]]:
        """One message: its code, what it says, and the answers."""
        code, text, answers = self._int(), self._text(), []
        while (size := self._int()) != -1:
            identity, content_type, status, phrase = (
                self._file.read(size).decode(),
                self._text(),
                self._int(),
                self._text(),
            )
            headers = {self._text(): self._text() for _ in range(self._int())}
            answers.append(Answered(identity, content_type, status, phrase, headers, self._file.read(self._int())))
        return code, text, answers

    def close(self) -> None:
        self._file.close()
        self._connection.close()

    def _int(self) -> int:
        return struct.unpack("!i", self._file.read(4))[0]

    def _text(self) -> str:
        return self._file.read(self._int()).decode()


END = struct.pack("!i", -1)


def _int(value: int) -> bytes:
    return struct.pack("!i", value)


def _octets(value: bytes) -> bytes:
    return _int(len(value)) + value


def _text(value: str) -> bytes:
    return _octets(value.encode())


def _request(request: Sent) -> bytes:
    headers = b"".join(_text(text) for pair in request.headers for text in pair)
    parts = b"".join(_text(part.name) + _text(part.content_type) + _octets(part.value) for part in request.parts)
    return _text(request.identity) + headers + END + parts + END
