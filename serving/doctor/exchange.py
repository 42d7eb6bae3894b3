"""One question over HTTP, by the standard library alone: the doctor also runs where the rest is not installed."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "get"]

LARGEST = 4 * 1024 * 1024  # bytes of an answer that are read


@dataclass(frozen=True)
class Answer:
    """A status and a body."""

    status: int
    body: bytes

    def plain(self) -> dict[str, Any]:
        """The body's JSON object; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def text(self) -> str:
        """The beginning of the body, for a person."""
        return " ".join(self.body[:200].decode("utf-8", "replace").split())


def get(url: str, seconds: float = 5.0) -> Answer | None:
    """Ask, past any proxy of the environment; None where nothing answers.

    Raises:
        ssl.SSLError: there is no trusted TLS connection to be had.
    """
    try:
        return _answer(url, seconds)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise error.reason from None
        return None
    except (OSError, ValueError, http.client.HTTPException):  # the last: what listens there speaks no HTTP
        return None


def _answer(url: str, seconds: float) -> Answer:
    tls = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
    try:
        with opener.open(url, timeout=seconds) as response:
            return Answer(response.status, response.read(LARGEST))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(LARGEST))
