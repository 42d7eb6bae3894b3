"""What Ray's HTTP proxies do with a request before all else, in a cluster of our own; cluster.py names it to Ray."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Ours", "middlewares"]

# By these a client would have Ray itself end its request, with an answer of Ray's, or go on with it after it has gone.
RAYS = frozenset([b"x-request-timeout-seconds", b"x-request-disconnect-disabled"])


class Ours:
    """Takes away the headers that speak to Ray's proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            scope = {**scope, "headers": [one for one in scope["headers"] if one[0].lower() not in RAYS]}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What the proxy is to be wrapped in."""
    return [Middleware(Ours)]
