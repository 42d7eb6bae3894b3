"""When a prediction is sent again. It changes nothing on the server, so it may be.

Waits are drawn evenly from zero to a bound that doubles ("full jitter"): clients that were refused together do not come
back together. See Brooker 2015, "Exponential Backoff and Jitter", AWS Architecture Blog.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

__all__ = ["Attempts", "Retrying"]

# A worker that failed or died, a full queue, a proxy whose server is away: another time it may work.
STATUSES = frozenset((500, 502, 503, 504, 507))
# Not: an address that is none, a protocol that is none.
LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)


@dataclass(frozen=True)
class Retrying:
    """How patient a client is.

    Attributes:
        deadline: seconds for one request, waits and all attempts counted.
        retries: attempts after the first.
        shortest, longest: seconds: the bound of the first wait, and of any.
    """

    deadline: float
    retries: int
    shortest: float = 0.1
    longest: float = 5.0


class Attempts:
    """The attempts of one request, the first of which begins now."""

    def __init__(self, how: Retrying) -> None:
        self._how = how
        self._end = time.monotonic() + how.deadline
        self._made = 0

    @property
    def left(self) -> float:
        """Seconds until the deadline; a little at least, for a timeout must be positive."""
        return max(self._end - time.monotonic(), 1e-3)

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._end

    def pause(self, outcome: httpx.Response | Exception) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none."""
        again = outcome.status_code in STATUSES if isinstance(outcome, httpx.Response) else isinstance(outcome, LOST)
        if not again or self._made >= self._how.retries:
            return None
        bound = min(self._how.longest, self._how.shortest * 2**self._made)
        self._made += 1
        wait = random.uniform(0, bound)  # noqa: S311 - nothing secret
        if isinstance(outcome, httpx.Response):
            wait = max(wait, _retry_after(outcome.headers.get("retry-after")))
        return wait if wait < self._end - time.monotonic() else None


def _retry_after(value: str | None) -> float:
    """Seconds that a server asks to be left alone: it says a number or a date."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())
