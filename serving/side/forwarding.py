"""Requests that the side server hands on: predictions of the console's page, and what TorchServe's management tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from polyhead.serving.side.exchange import HEADERS, JSON, Asked, MethodNotAllowed, Reply, Unavailable

__all__ = ["Managed", "Predictions"]

ENOUGH = 10.0  # seconds more than a batch may take, for an answer that waits in the queue
# What a browser's page sends that the handler reads; TorchServe takes other headers for orders.
PASSED = ("accept", "content-type", "content-encoding", "x-polyhead-heads", "x-polyhead-options", "x-request-id")
GIVEN = ("x-polyhead-model", "x-polyhead-bundle", "x-request-id", "retry-after")


class Predictions:
    """Hands predictions on to TorchServe, so that the console's page needs one address alone.

    Args:
        url: of TorchServe's inference.
        seconds: that a batch may take.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._http = httpx.Client(base_url=url, timeout=seconds + ENOUGH, trust_env=False)

    def __call__(self, asked: Asked, _: Mapping[str, str]) -> Reply:
        """What TorchServe answers."""
        headers = {name: asked.headers[name] for name in PASSED if name in asked.headers}
        try:
            response = self._http.post(asked.path, content=asked.body, headers=headers)
        except httpx.TransportError:
            raise Unavailable("the server gives no answer: try again") from None
        given = {name.title(): response.headers[name] for name in GIVEN if name in response.headers}
        content_type = response.headers.get("content-type", JSON)
        return Reply(response.status_code, response.content, content_type, {**HEADERS, **given})

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()


class Managed:
    """Shows what the management API tells, and lets nothing be changed.

    Args:
        get: asks the API for a path and query.
    """

    def __init__(self, get: Callable[[str], httpx.Response]) -> None:
        self._get = get

    def __call__(self, asked: Asked) -> Reply:
        """What the API answers."""
        if asked.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(
                f"the management API is shown, not given: {asked.method} changes; use polyhead deploy", ("GET", "HEAD")
            )
        try:
            response = self._get(asked.target)
        except httpx.TransportError:
            raise Unavailable("TorchServe gives no answer: try again") from None
        return Reply(response.status_code, response.content, response.headers.get("content-type", JSON))
