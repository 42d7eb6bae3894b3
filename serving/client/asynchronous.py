"""The client for programs that do other things meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from polyhead.serving.client.answers import Row
from polyhead.serving.client.bodies import Array, Body, bodies
from polyhead.serving.client.exchange import ID_HEADER, Exchange
from polyhead.serving.client.failures import unreachable
from polyhead.serving.client.retrying import Attempts

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """As `Client`, with methods to await. The requests of one job are on their way at the same time.

    Args:
        url, timeout, deadline, retries, chunk_rows, chunk_bytes, connections: as of `Client`.
        concurrency: requests of one job that wait for their answers at the same time.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        deadline: float | None = None,
        retries: int = 5,
        chunk_rows: int = 1024,
        chunk_bytes: int = 4 * 1024 * 1024,
        connections: int = 64,
        concurrency: int = 4,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: give one or more")
        self._exchange = Exchange(url, timeout, deadline, retries, chunk_rows, chunk_bytes)
        self._concurrency = concurrency
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(trust_env=self._exchange.trust_env, limits=limits)

    @property
    def url(self) -> str:
        """Of the inference API."""
        return self._exchange.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def predict(
        self,
        model: str,
        rows: Array | Sequence[Any],
        heads: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> list[Row]:
        """Each row's answers by head, in the order of the rows. Arguments and errors are those of `Client.predict`."""
        return await self._each(model, bodies(rows, heads, options, self._exchange.cut), self._typed, request_id)

    async def predict_json(
        self,
        model: str,
        rows: Array | Sequence[Any],
        heads: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """As `predict`, with the answers as the server's JSON has them."""
        return await self._each(model, bodies(rows, heads, options, self._exchange.cut), self._plain, request_id)

    async def predict_file(
        self,
        model: str,
        data: bytes,
        media_type: str,
        heads: Sequence[str] | None = None,
        request_id: str | None = None,
    ) -> Row:
        """Send one row as the body, such as an image file; returns its answers by head. Raises as `predict` does."""
        (row,) = await self._typed(model, self._exchange.file_body(data, media_type, heads), request_id)
        return row

    async def _each(
        self,
        model: str,
        parts: Iterator[Body],
        ask: Callable[[str, Body, str | None], Awaitable[list[T]]],
        request_id: str | None,
    ) -> list[T]:
        """All rows' answers in the order of the rows, a few requests on their way at a time."""
        answers: dict[int, list[T]] = {}

        async def work() -> None:  # one body at a time is made, and none before somebody is there to send it
            for body in parts:
                answers[body.first] = await ask(model, body, request_id)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the others were cancelled
        return [row for first in sorted(answers) for row in answers[first]]

    async def _typed(self, model: str, body: Body, request_id: str | None) -> list[Row]:
        return self._exchange.typed(model, body, *await self._ask(model, body, request_id, True))

    async def _plain(self, model: str, body: Body, request_id: str | None) -> list[dict[str, Any]]:
        return self._exchange.rows(model, body, *await self._ask(model, body, request_id, False))

    async def _ask(self, model: str, body: Body, request_id: str | None, typed: bool) -> tuple[httpx.Response, str]:
        """The last answer to a request, and the request's id."""
        headers = self._exchange.headers(body, request_id, typed)
        return await self._send(self._exchange.address(model), body, headers), headers[ID_HEADER]

    async def _send(self, address: str, body: Body, headers: Mapping[str, str]) -> httpx.Response:
        attempts = Attempts(self._exchange.retrying)
        while True:
            left = attempts.left
            timeout = min(self._exchange.timeout, left)
            outcome: httpx.Response | Exception
            try:
                async with asyncio.timeout(left):  # httpx's own is for each part of an answer, however many there are
                    outcome = await self._http.post(address, content=body.content, headers=headers, timeout=timeout)
            except TimeoutError:
                outcome = httpx.ReadTimeout("timed out")
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
                outcome = error
            pause = attempts.pause(outcome)
            if pause is not None:
                await asyncio.sleep(pause)
            elif isinstance(outcome, httpx.Response):
                return outcome
            else:
                raise unreachable(self.url, outcome, headers[ID_HEADER]) from None
