"""Requests that meet in one batch of a real server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.server import Running

ATTEMPTS = 20


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Clients:
    """As many connections as requests in a batch, so that each is sent before any is answered."""

    def __init__(self, running: Running, model: str, count: int) -> None:
        self._running, self._model = running, model
        address = urlsplit(running.url)
        self._connections = [
            http.client.HTTPConnection(address.hostname, address.port, timeout=60) for _ in range(count)
        ]

    def send(self, requests: Sequence[tuple[bytes, dict[str, str]]]) -> list[Answer]:
        """Bodies and headers, sent in their order; the answers in the same order."""
        used = self._connections[: len(requests)]
        for connection, (body, headers) in zip(used, requests, strict=True):
            connection.request("POST", f"/predictions/{self._model}", body, headers)
        answers = []
        for connection in used:
            response = connection.getresponse()
            answers.append(Answer(response.status, response.headers, response.read()))
        return answers

    def in_one_batch(self, requests: Sequence[tuple[bytes, dict[str, str]]]) -> list[Answer]:
        """As `send`, again until all of them were one batch: a busy machine may part them."""
        for _ in range(ATTEMPTS):
            before = self._running.counts(self._model)["batches"]
            answers = self.send(requests)
            if self._running.counts(self._model)["batches"] == before + 1:
                return answers
        raise AssertionError(f"{len(requests)} requests never met in one batch, in {ATTEMPTS} attempts")

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@contextmanager
def clients(running: Running, model: str, count: int) -> Iterator[Clients]:
    """Connections for a while."""
    made = Clients(running, model, count)
    try:
        yield made
    finally:
        made.close()
