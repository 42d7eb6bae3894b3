"""A lock where there are no locks: an object store. A driver claims the destination, and keeps saying that it lives.

A claim is a new file, `_polyhead/lock/<token>-<owner>.claim`; its sign of life is another one beside it, put again and
again. Object stores list what was put before, but cannot make a file "only if there is none". So a driver that finds no
living claim puts its own, waits longer than the store rounds its times, and looks once more: of claims made at
the same time, the oldest by the store's own clock wins, and the others withdraw. The claim of a driver that stops
saying that it lives (it died, or was cut off) is removed after half a minute by the next one; should it come back,
it looks for its claim before every change that counts.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from polyhead.serving.scoring.errors import JobLocked
from polyhead.serving.scoring.holder import HOLDER, Holder, refusal
from polyhead.serving.scoring.job import INNER
from polyhead.serving.scoring.store import Store

__all__ = ["Lease"]

CLAIMS = f"{INNER}/lock"
CLAIM, BEAT = ".claim", ".beat"


@dataclass(frozen=True)
class Claim:
    """One driver's claim.

    Attributes:
        token: its number.
        owner: its driver, a random word.
        made: when, by the store's clock, in seconds.
        seen: its last sign of life, by the same clock.
    """

    token: int
    owner: str
    made: float
    seen: float

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{CLAIMS}/{self.token:08d}-{self.owner}{CLAIM}"


class Lease:
    """Holds a destination while it is entered.

    Args:
        store: the destination.
        expiry: seconds without a sign of life, after which a driver counts as gone.
        settle: seconds between claiming and believing it; longer than the store rounds its times, which is to seconds.
    """

    EXPIRY: ClassVar[float] = 30.0
    SETTLE: ClassVar[float] = 2.5

    def __init__(self, store: Store, *, expiry: float | None = None, settle: float | None = None) -> None:
        self.token = 0
        self.store = store
        self.expiry = self.EXPIRY if expiry is None else expiry
        self.settle = self.SETTLE if settle is None else settle
        self._owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        last = Holder.read(self.store)
        before = self._claims()
        self.token = 1 + max([0 if last is None else last.token, *(claim.token for claim in before)])
        self._renewed = time.monotonic()
        self.store.put(self._mine(CLAIM), Holder.me(self.token).content())
        try:
            self._win()
        except BaseException:
            self._withdraw()
            raise
        self.store.put(HOLDER, Holder.me(self.token).content())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(self.settle)  # it may be waiting for a store that does not answer; it ends with the process
        # One that cannot be withdrawn expires; what ended the job is what matters.
        with contextlib.suppress(OSError):
            self._withdraw()

    def check(self) -> None:
        """Make sure that no other driver has taken over.

        Raises:
            JobLocked: one has, because this one gave no sign of life for too long.
        """
        if not self.store.exists(self._mine(CLAIM)):
            raise refusal(self.store, Holder.read(self.store))
        if time.monotonic() - self._renewed <= self.expiry:
            return
        # Nobody heard of this driver for too long. Whoever takes over now sees this sign of life when it looks a second
        # time, or has removed the claim by then.
        begun = time.monotonic()
        self.store.put(self._mine(BEAT), b"")
        time.sleep(self.settle)
        if not self.store.exists(self._mine(CLAIM)):
            raise JobLocked(
                f"{self.store.where(INNER)}: this driver could not renew its lock for {self.expiry:.0f} s, and "
                "another one has begun: go on with --resume when that one has ended"
            )
        self._renewed = begun

    def _win(self) -> None:
        """See that no other claim lives, and remove those of drivers that are gone."""
        self._expired()
        time.sleep(self.settle)
        for claim in self._expired():
            self.store.delete(claim.name)
            self.store.delete(claim.name.removesuffix(CLAIM) + BEAT)

    def _expired(self) -> list[Claim]:
        claims = self._claims()
        mine = next((claim for claim in claims if claim.owner == self._owner), None)
        if mine is None:
            raise refusal(self.store, None)
        now = max(claim.seen for claim in claims)
        older = [claim for claim in claims if (claim.made, claim.owner) < (mine.made, mine.owner)]
        for claim in older:
            if now - claim.seen < self.expiry:
                raise refusal(self.store, Holder.read(self.store, claim.name))
        return older

    def _claims(self) -> list[Claim]:
        times = self.store.times(CLAIMS)
        found = []
        for name, made in times.items():
            if name.endswith(CLAIM):
                stem = name.removesuffix(CLAIM)
                token, _, owner = stem.rpartition("/")[2].partition("-")
                found.append(Claim(int(token), owner, made, max(made, times.get(stem + BEAT, 0.0))))
        return found

    def _mine(self, kind: str) -> str:
        return f"{CLAIMS}/{self.token:08d}-{self._owner}{kind}"

    def _withdraw(self) -> None:
        self.store.delete(self._mine(CLAIM))
        self.store.delete(self._mine(BEAT))

    def _renew(self) -> None:
        while not self._ended.wait(self.expiry / 6):
            begun = time.monotonic()
            # A sign of life that fails is followed by the next one; `check` counts the seconds.
            with contextlib.suppress(Exception):
                self.store.put(self._mine(BEAT), b"")
                self._renewed = begun
