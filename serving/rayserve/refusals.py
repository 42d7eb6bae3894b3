"""What the HTTP side refuses by itself, in place of a model's answer; all else is refused as the side server does."""

from __future__ import annotations

from polyhead.serving.errors import RequestError
from polyhead.serving.side.exchange import Unavailable

__all__ = ["Late", "NotReady", "QueueFull", "Slow"]


class QueueFull(Unavailable):
    """As many requests wait as may."""

    type = "overloaded"


class NotReady(Unavailable):
    """No replica of the model answers now."""

    type = "not_ready"


class Late(RequestError):
    """The model, or what tells about it, did not answer in time; the front door's words."""

    status = 504
    phrase = "Gateway Timeout"
    type = "timeout"


class Slow(RequestError):
    """The request did not arrive in time; the front door's words."""

    status = 408
    phrase = "Request Timeout"
    type = "request_timeout"
