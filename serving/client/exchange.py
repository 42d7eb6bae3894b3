"""What both clients do with a request before it is sent and with an answer after it came."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import httpx

from polyhead.serving.client import tables
from polyhead.serving.client.answers import Row, answer_of
from polyhead.serving.client.bodies import HEADS_HEADER, JSON, NPY, OPTIONS_HEADER, Body, Cut
from polyhead.serving.client.failures import ServerError, failure_of
from polyhead.serving.client.retrying import Retrying

__all__ = ["ID_HEADER", "Exchange", "whole"]

ID_HEADER = "X-Request-Id"
MANY = 64  # rows from which on reading a table is quicker than reading JSON
LOCAL = ("127.0.0.1", "localhost", "::1")


class Exchange:
    """One server, and how it is asked.

    Args:
        url: of the inference API, as `http://127.0.0.1:8080`.
        timeout: seconds for one attempt.
        deadline: seconds for one request with all its attempts; `timeout` where None.
        retries: attempts after the first.
        chunk_rows, chunk_bytes: a job of more is cut into several requests.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        deadline: float | None,
        retries: int,
        chunk_rows: int,
        chunk_bytes: int,
    ) -> None:
        if chunk_rows < 1 or chunk_bytes < 1:
            raise ValueError(f"chunk_rows={chunk_rows}, chunk_bytes={chunk_bytes}: give one or more")
        if retries < 0:
            raise ValueError(f"retries={retries}: give 0 or more")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.retrying = Retrying(timeout if deadline is None else deadline, retries)
        self.cut = Cut(chunk_rows, chunk_bytes)

    @property
    def trust_env(self) -> bool:
        """Whether a proxy that the environment names is for this server: it is for other machines."""
        return httpx.URL(self.url).host not in LOCAL

    def address(self, model: str) -> str:
        """Where a model is asked."""
        return f"{self.url}/predictions/{model}"

    def file_body(self, data: bytes, media_type: str, heads: Sequence[str] | None) -> Body:
        """The body that is one row."""
        headers = {} if heads is None else {HEADS_HEADER: ",".join(heads)}
        return Body(data, media_type, single=True, headers=headers)

    def headers(self, body: Body, request_id: str | None, typed: bool) -> dict[str, str]:
        """Of a request; the same for all its attempts.

        Args:
            request_id: the caller's, drawn where None.
            typed: the answers are to be objects, so that they need not come as JSON.
        """
        plain = OPTIONS_HEADER not in body.headers
        arrow = typed and plain and body.media_type == NPY and body.rows >= MANY and tables.readable()
        name = (
            uuid.uuid4().hex if request_id is None else request_id if not body.first else f"{request_id}-{body.first}"
        )
        accept = f"{tables.ARROW}, {JSON};q=0.5" if arrow else JSON
        return {"Content-Type": body.media_type, "Accept": accept, ID_HEADER: name, **body.headers}

    def rows(self, model: str, body: Body, response: httpx.Response, request_id: str) -> list[dict[str, Any]]:
        """The rows of an answer, as JSON has them.

        Raises:
            ServerError: it is an error, or no answer of Polyhead's.
        """
        if response.status_code != httpx.codes.OK:
            raise failure_of(model, response, request_id, body.first)
        try:
            content = response.json()
        except ValueError:
            content = None
        found = [content] if body.single else content.get("predictions") if isinstance(content, dict) else None
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            found = []
        self._require(model, body, len(found), request_id)
        return found

    def typed(self, model: str, body: Body, response: httpx.Response, request_id: str) -> list[Row]:
        """The rows of an answer, as objects by head.

        Raises:
            ServerError: it is an error, or none that is known here.
        """
        arrow = response.status_code == httpx.codes.OK and response.headers.get("content-type", "") == tables.ARROW
        content = () if arrow else self.rows(model, body, response, request_id)
        try:
            if not arrow:
                return [{head: answer_of(answer) for head, answer in row.items()} for row in content]
            rows = tables.rows_of(response.content)
        except ValueError as error:
            raise ServerError(f"{model}: {error}", 200, request_id=request_id) from None
        self._require(model, body, len(rows), request_id)
        return rows

    def _require(self, model: str, body: Body, found: int, request_id: str) -> None:
        if found != body.rows:
            raise ServerError(
                f"{model}: 200: {found} answers to {body.rows} rows: {self.url} is no Polyhead server",
                200,
                request_id=request_id,
            )


def whole(response: httpx.Response, content: bytes) -> httpx.Response:
    """An answer that was read part by part, with its content, which is inflated already."""
    kept = {name: value for name, value in response.headers.items() if name in ("content-type", "retry-after")}
    return httpx.Response(response.status_code, headers=kept, content=content)
