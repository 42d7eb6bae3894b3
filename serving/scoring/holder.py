"""Who holds a lock, as another driver is told."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from polyhead.serving.scoring.errors import JobLocked
from polyhead.serving.scoring.job import INNER
from polyhead.serving.scoring.store import Store

__all__ = ["HOLDER", "Holder", "refusal"]

HOLDER = f"{INNER}/driver.json"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, or held it last.

    Attributes:
        token: of that driver; the next one's is larger.
        host, pid: of its process.
        since: when it took the lock, as ISO 8601.
    """

    token: int
    host: str
    pid: int
    since: str

    @classmethod
    def me(cls, token: int) -> Self:
        """This process."""
        return cls(token, socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def read(cls, store: Store, name: str = HOLDER) -> Self | None:
        """The one who is named in a file; None where there is no such file, or it is being written."""
        try:
            plain: dict[str, Any] = orjson.loads(store.read(name))
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        return cls(**plain)

    def content(self) -> bytes:
        """As a file holds it."""
        return orjson.dumps(asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def refusal(store: Store, holder: Holder | None) -> JobLocked:
    """What a second driver is told."""
    who = "another driver" if holder is None else str(holder)
    return JobLocked(f"{store.where(INNER)}: {who} works on it: wait for its end, or stop it")
