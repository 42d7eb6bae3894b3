"""The control of a running server over HTTP, for whoever is on its machine: `polyhead deploy` asks it.

No front door hands these paths on, and no other user of the machine may ask. A browser cannot be talked into them: the
header that they want makes it ask first, which is refused; `SideServer` refuses a name that a stranger gave it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson
from pydantic import Field, StrictStr, ValidationError

from polyhead.models.spec import Strict, first_fault
from polyhead.serving.errors import DeployError, InvalidInstance, MalformedBody, PolyheadError
from polyhead.serving.side.exchange import Asked, Conflict, Forbidden, NotFound, Refused, Reply, json_reply
from polyhead.serving.side.roster import Entry

__all__ = ["HEADER", "Changes", "Control"]

HEADER = "x-polyhead-control"
ROOT = 0
NAME = r"^[A-Za-z0-9._-]{1,200}$"


class Order(Strict):
    """What is to be changed."""

    model: StrictStr = Field(pattern=NAME)
    version: StrictStr | None = Field(default=None, pattern=NAME)
    bundle: StrictStr | None = None


class Changes(Protocol):
    """Makes the changes; see `serving/torchserve/deploying.py`."""

    def add(self, name: str, version: str, path: Path | None) -> Entry:
        """Load a further version."""

    def promote(self, name: str, version: str) -> Entry:
        """Make a version the default."""

    def rollback(self, name: str) -> Entry:
        """Make the version before the default."""

    def remove(self, name: str, version: str) -> Entry:
        """End a version."""


class Control:
    """Answers `POST /control/<verb>`.

    Args:
        changes: what makes them.
        busy, unknown: its errors for another change that is being made, and for a version that is not there.
    """

    path = r"/control/(?P<verb>[a-z]+)"

    def __init__(self, changes: Changes, busy: type[DeployError], unknown: type[DeployError]) -> None:
        self._busy, self._unknown = busy, unknown
        self._verbs: Mapping[str, Callable[[Order], Entry]] = {
            "add": lambda order: changes.add(order.model, _version(order), _path(order)),
            "promote": lambda order: changes.promote(order.model, _version(order)),
            "rollback": lambda order: changes.rollback(order.model),
            "remove": lambda order: changes.remove(order.model, _version(order)),
        }

    def __call__(self, asked: Asked, names: Mapping[str, str]) -> Reply:
        """Make a change.

        Raises:
            RequestError: it was not made; the reason in the message.
        """
        if asked.headers.get(HEADER) != "1" or "origin" in asked.headers:
            raise Forbidden(f"changes are for polyhead deploy on this machine: send {HEADER}: 1 to the loopback")
        owner = asked.owner()
        if owner not in (os.geteuid(), ROOT):
            whose = "of an unknown user (/proc/net/tcp does not tell)" if owner is None else f"of user {owner}"
            raise Forbidden(f"the change is {whose}: have user {os.geteuid()}, who runs the server, or root ask for it")
        verb = self._verbs.get(names["verb"])
        if verb is None:
            raise NotFound(f"there is no change {names['verb']!r:.40}: there are {', '.join(self._verbs)}")
        order = _order(asked.body)
        try:
            entry = verb(order)
        except self._busy as error:
            raise Conflict(str(error)) from None
        except self._unknown as error:
            raise NotFound(str(error)) from None
        except PolyheadError as error:
            raise Refused(str(error)) from None
        return json_reply(_told(entry))


def _order(body: bytes) -> Order:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the change is not JSON: {error}") from None
    try:
        return Order.model_validate(content)
    except ValidationError as error:
        raise InvalidInstance(f"the change cannot be read: {first_fault(error, content)}") from None


def _version(order: Order) -> str:
    if order.version is None:
        raise InvalidInstance("the change names no version: give one")
    return order.version


def _path(order: Order) -> Path | None:
    if order.bundle is None:
        return None
    if not order.bundle.startswith("/"):
        raise InvalidInstance(f"bundle {order.bundle!r:.100}: give an absolute path on the server's machine")
    return Path(order.bundle)


def _told(entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.name,
        "version": entry.version,
        "default": entry.default,
        "bundle": entry.bundle.digest[:12],
        "graph": entry.served.graph,
        "runtime": entry.served.runtime,
        "device": entry.served.device,
        "workers": entry.served.workers,
    }
