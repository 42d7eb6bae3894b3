"""The id by which a request is found again: the client's own, else the one the server gave it."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["LONGEST", "TAG_HEADER", "client_id", "request_id"]

LONGEST = 128  # characters
# TorchServe answers every request with an `X-Request-Id` that it draws itself, over any that a handler sets. So the
# client's own goes back under this name.
TAG_HEADER = "X-Polyhead-Request-Id"
_PRINTABLE = re.compile(rf"[!-~]{{1,{LONGEST}}}", re.ASCII)
# https://www.w3.org/TR/trace-context/: version, trace-id, parent-id, flags. Version 00 has these four parts, no more.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def request_id(headers: Mapping[str, str], fallback: str) -> str:
    """The client's id, or the server's.

    Args:
        headers: by name in lower case.
        fallback: the server's own.
    """
    return client_id(headers) or fallback


def client_id(headers: Mapping[str, str]) -> str | None:
    """`X-Request-Id`, else the trace-id of `traceparent`; None where the client sent neither.

    One that has anything but printable ASCII, or is longer than `LONGEST`, counts as not sent: ids end in headers and
    logs.

    Args:
        headers: by name in lower case.
    """
    given = headers.get("x-request-id")
    if given is not None and _PRINTABLE.fullmatch(given):
        return given
    parent = headers.get("traceparent")
    found = None if parent is None else _TRACEPARENT.fullmatch(parent.strip())
    if found is None or (found[1] == "00" and found[3] is not None):
        return None
    return found[2]
