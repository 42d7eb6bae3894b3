"""The client that waits for its answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

from polyhead.serving.client.answers import Row
from polyhead.serving.client.bodies import Array, Body, bodies
from polyhead.serving.client.exchange import ID_HEADER, Exchange, whole
from polyhead.serving.client.failures import unreachable
from polyhead.serving.client.retrying import Attempts

__all__ = ["Client"]


class Client:
    """Asks one server, over connections that are kept. A context manager; may be shared between threads.

    A prediction is asked again, under the same id, where the connection was lost or the server answered 500, 502, 503,
    504 or 507: at most `retries` times, within `deadline`, after a wait with jitter or the `Retry-After` that it got.
    An answer of 400 to 499 is never asked for again.

    Args:
        url: of the inference API, as `http://127.0.0.1:8080`.
        timeout: seconds for one attempt.
        deadline: seconds for one request with all its attempts; `timeout` where None.
        retries: attempts after the first.
        chunk_rows, chunk_bytes: a job of more rows or bytes is cut into several requests.
        connections: kept at most.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        deadline: float | None = None,
        retries: int = 5,
        chunk_rows: int = 1024,
        chunk_bytes: int = 4 * 1024 * 1024,
        connections: int = 16,
    ) -> None:
        self._exchange = Exchange(url, timeout, deadline, retries, chunk_rows, chunk_bytes)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.Client(trust_env=self._exchange.trust_env, limits=limits)

    @property
    def url(self) -> str:
        """Of the inference API."""
        return self._exchange.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self,
        model: str,
        rows: Array | Sequence[Any],
        heads: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> list[Row]:
        """Each row's answers by head, in the order of the rows.

        Args:
            model: `name` or `name/version`.
            rows: an array `[rows, …]` of the model's only input (sent in binary), or a sequence of rows: texts, lists
                of numbers, image files as `bytes`, or mappings with one of these per input.
            heads: the heads wanted; all of them where None.
            options: `top_k`, `scores`, `raw`, `mask`.
            request_id: for the server's log; drawn where None. Requests after a job's first have the number of their
                first row behind it.

        Raises:
            Refused: a row, head or option is wrong; `loc` says where.
            Unavailable: the server failed, also when it was asked again.
            Unreachable: there was no answer in time.
        """
        parts = bodies(rows, heads, options, self._exchange.cut)
        return [row for body in parts for row in self._typed(model, body, request_id)]

    def predict_json(
        self,
        model: str,
        rows: Array | Sequence[Any],
        heads: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """As `predict`, with the answers as the server's JSON has them."""
        parts = bodies(rows, heads, options, self._exchange.cut)
        return [row for body in parts for row in self._plain(model, body, request_id)]

    def predict_file(
        self,
        model: str,
        data: bytes,
        media_type: str,
        heads: Sequence[str] | None = None,
        request_id: str | None = None,
    ) -> Row:
        """Send one row as the body, such as an image file; returns its answers by head. Raises as `predict` does."""
        (row,) = self._typed(model, self._exchange.file_body(data, media_type, heads), request_id)
        return row

    def predict_file_json(
        self,
        model: str,
        data: bytes,
        media_type: str,
        heads: Sequence[str] | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """As `predict_file`, with the answers as the server's JSON has them."""
        (row,) = self._plain(model, self._exchange.file_body(data, media_type, heads), request_id)
        return row

    def _typed(self, model: str, body: Body, request_id: str | None) -> list[Row]:
        return self._exchange.typed(model, body, *self._ask(model, body, request_id, True))

    def _plain(self, model: str, body: Body, request_id: str | None) -> list[dict[str, Any]]:
        return self._exchange.rows(model, body, *self._ask(model, body, request_id, False))

    def _ask(self, model: str, body: Body, request_id: str | None, typed: bool) -> tuple[httpx.Response, str]:
        """The last answer to a request, and the request's id."""
        headers = self._exchange.headers(body, request_id, typed)
        return self._send(self._exchange.address(model), body, headers), headers[ID_HEADER]

    def _send(self, address: str, body: Body, headers: Mapping[str, str]) -> httpx.Response:
        attempts = Attempts(self._exchange.retrying)
        while True:
            outcome: httpx.Response | Exception
            try:
                outcome = self._attempt(address, body, headers, attempts)
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is not None:
                time.sleep(pause)
            elif isinstance(outcome, httpx.Response):
                return outcome
            else:
                raise unreachable(self.url, outcome, headers[ID_HEADER]) from None

    def _attempt(self, address: str, body: Body, headers: Mapping[str, str], attempts: Attempts) -> httpx.Response:
        timeout = min(self._exchange.timeout, attempts.left)
        with self._http.stream("POST", address, content=body.content, headers=headers, timeout=timeout) as response:
            parts = []
            for part in response.iter_bytes():
                parts.append(part)
                if attempts.over:  # httpx's own timeout is for each part of an answer, however many there are
                    raise httpx.ReadTimeout("timed out")
            return whole(response, b"".join(parts))
