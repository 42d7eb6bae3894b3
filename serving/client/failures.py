"""What can go wrong between a client and a server, one class per kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from polyhead.serving.errors import Place, PolyheadError

__all__ = ["Refused", "ServerError", "Unavailable", "Unreachable", "failure_of", "unreachable"]


class ServerError(PolyheadError):
    """The server cannot be reached, or answered with an error.

    Attributes:
        status: the HTTP status, None where there was no answer.
        body: the JSON of the error, empty where there was none.
        type: of the error, as `unknown_head`; empty where the server told none.
        loc: where in the request, as `("instances", 3, "text")`; rows are counted over all that was sent.
        request_id: by which the server's log knows the request.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        body: Mapping[str, Any] | None = None,
        loc: Place = (),
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = dict(body or {})
        self.type = str(self.body.get("type", ""))
        self.loc = loc
        self.request_id = request_id


class Unreachable(ServerError):
    """There was no whole answer: no connection, a lost one, or none in time."""


class Refused(ServerError):
    """A status of 400 to 499: the same request would be refused again."""


class Unavailable(ServerError):
    """A status of 500 and more: the server failed or was overloaded, also when asked again."""


def failure_of(model: str, response: httpx.Response, request_id: str, first: int = 0) -> ServerError:
    """An answer that is an error.

    Args:
        model: that was asked.
        first: the number of the request's first row, where a job was cut into several requests.
    """
    try:
        content = response.json()
    except ValueError:
        content = None
    body: dict[str, Any] = content if isinstance(content, dict) else {}
    loc = _counted(body.get("loc"), first)
    # TorchServe's own errors carry a message, ours an error.
    message = body.get("error") or body.get("message") or response.text[:200]
    place = ".".join(str(part) for part in loc)
    text = f"{model}: {response.status_code}: {message}{f' (at {place})' if place else ''}"
    kind = Refused if 400 <= response.status_code < 500 else Unavailable if response.status_code >= 500 else ServerError
    return kind(text, response.status_code, body, loc, request_id)


def _counted(loc: Any, first: int) -> Place:
    """A place of the request as a place of the whole job."""
    if not isinstance(loc, list):
        return ()
    place = [part if isinstance(part, int | str) else str(part) for part in loc]
    if len(place) > 1 and place[0] == "instances" and isinstance(place[1], int):
        place[1] += first
    return tuple(place)


def unreachable(url: str, error: Exception, request_id: str) -> Unreachable:
    """No whole answer."""
    return Unreachable(
        f"no answer from {url} ({error or type(error).__name__}): is it running? polyhead serve BUNDLE",
        request_id=request_id,
    )
