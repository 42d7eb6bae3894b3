"""A request to the side server and its answer, free of sockets; and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from polyhead.serving.errors import RequestError

__all__ = [
    "Asked",
    "Conflict",
    "Forbidden",
    "LengthRequired",
    "MethodNotAllowed",
    "NotFound",
    "Refused",
    "Reply",
    "Unavailable",
    "json_reply",
    "refusal",
]

JSON = "application/json"
# Nothing of ours is to be kept by a proxy, guessed at by a browser, or shown inside of another page.
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        method: as GET.
        path: decoded no further than it was sent, without the query.
        headers: by name in lower case.
        body: whole.
        query: what stood behind the path's question mark.
        owner: tells the user id of whoever asks, at this machine; None where that is not known.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: str = ""
    owner: Callable[[], int | None] = lambda: None

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)


class NotFound(RequestError):
    """No such path, or no such model."""

    status = 404
    phrase = "Not Found"
    type = "not_found"


class MethodNotAllowed(RequestError):
    """A path that is there, asked in a way that it does not know.

    Args:
        message: what, got, fix.
        allowed: the methods that it knows.
    """

    status = 405
    phrase = "Method Not Allowed"
    type = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class Forbidden(RequestError):
    """What somebody asks who may not: another user of this machine, or a browser that was talked into it."""

    status = 403
    phrase = "Forbidden"
    type = "forbidden"


class Conflict(RequestError):
    """A change that cannot be made as things are."""

    status = 409
    phrase = "Conflict"
    type = "conflict"


class Refused(RequestError):
    """A change that was tried and undone: the version is not fit."""

    status = 422
    phrase = "Unprocessable Entity"
    type = "refused"


class LengthRequired(RequestError):
    """A body whose length nobody told."""

    status = 411
    phrase = "Length Required"
    type = "length_required"


class Unavailable(RequestError):
    """Too much at once, or something behind that gives no answer."""

    status = 503
    phrase = "Service Unavailable"
    type = "unavailable"


def json_reply(content: Any, status: int = 200) -> Reply:
    """An answer in JSON."""
    return Reply(status, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))


def refusal(error: RequestError) -> Reply:
    """An error as the answer that it is."""
    headers = dict(HEADERS)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    return Reply(error.status, orjson.dumps(error.body(), option=orjson.OPT_APPEND_NEWLINE), headers=headers)
