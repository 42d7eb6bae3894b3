"""What a running server serves, changed: versions added, made the default, taken back, removed; never an answer lost.

A version gets no request without a version before it was loaded, warmed, and held to its golden samples on the way that
clients' requests take; and it is gone only after it has answered all that it had.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import httpx

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import DeployError, Overloaded
from polyhead.serving.served import Served
from polyhead.serving.shelf import find_version
from polyhead.serving.side.prober import Prober
from polyhead.serving.side.roster import Entry, Roster
from polyhead.serving.torchserve.launcher import Server
from polyhead.serving.torchserve.readiness import GoldenSamples
from polyhead.serving.torchserve.room import require_room

__all__ = ["Busy", "Deployer", "Unknown"]

POLL_SECONDS = 0.1
CLOSE_SECONDS = 2.0  # for a change that is being made to be given up
TRIES_SECONDS = 15.0  # for a golden sample to get past a full queue


class Busy(DeployError):
    """Another change is being made."""


class Unknown(DeployError):
    """A version that is not served."""


class Door(Protocol):
    """What stands before TorchServe, if anything does."""

    def refuse(self, titles: Sequence[str]) -> None:
        """Answer 404 to requests that name one of these, `name/version` or a bare name, and to no others."""


class Deployer:
    """Changes one server, one change at a time.

    Args:
        server: that is running.
        roster: what it serves.
        prober: that watches over it.
        url: of the way that clients' requests take, when it is needed.
        folders: where bundles are looked for.
        door: before the server; None where there is none.
        drain_timeout: seconds that a version's last requests may take.
    """

    def __init__(
        self,
        server: Server,
        roster: Roster,
        prober: Prober,
        url: Callable[[], str],
        folders: Sequence[Path],
        door: Door | None,
        drain_timeout: float,
    ) -> None:
        self._server, self._roster, self._prober, self._url = server, roster, prober, url
        self._folders, self._door, self._drain_timeout = folders, door, drain_timeout
        self._lock = threading.Lock()
        self._doing = ""
        self._closed = threading.Event()

    @contextmanager
    def _change(self, what: str) -> Iterator[None]:
        # While it starts the roster is empty: what is being loaded would be taken for new.
        if self._prober.health().starting:
            raise Busy(f"{what}: the server is still starting: try again when it is ready")
        if not self._lock.acquire(blocking=False):
            raise Busy(f"{what}: the server is busy with another change ({self._doing}): try again when it is done")
        try:
            if self._closed.is_set():
                raise DeployError(f"{what}: the server is stopping")
            self._doing = what
            yield
        finally:
            self._doing = ""
            self._lock.release()

    def add(self, name: str, version: str, path: Path | None) -> Entry:
        """Load a further version, prove it, and serve it to requests that name it.

        Args:
            name, version: that the bundle must have.
            path: of the bundle; None looks for it where the server was started with.

        Raises:
            PolyheadError: the bundle is not whole, cannot be loaded, or answers wrong; nothing of it is left, and what
                served before serves on.
        """
        title = f"{name}/{version}"
        with self._change(f"add {title}"):
            if self._roster.find(name, version) is not None:
                raise DeployError(f"{title} is served already: a name and version are served once")
            bundle = Bundle.open(find_version(self._folders, title) if path is None else path)
            if bundle.title != title:
                raise DeployError(f"the bundle is {bundle.title}, asked for was {title}: name the one that is meant")
            require_room(self._server, bundle)
            served = self._server.load(bundle, self._closed.is_set)
            try:
                self._prove(served, versioned=True)
                entry = self._roster.add(served)
            except BaseException:
                self._server.unload(bundle)
                raise
            self._prober.watch(served, self._url())
            return entry

    def promote(self, name: str, version: str) -> Entry:
        """Answer requests without a version by this one.

        Raises:
            PolyheadError: it is not served, or answers wrong; the default is what it was.
        """
        with self._change(f"promote {name}/{version}"):
            return self._promote(self._require(name, version))

    def rollback(self, name: str) -> Entry:
        """Make that version the default which was before the last change.

        Raises:
            PolyheadError: there was none, or it is gone, or it answers wrong.
        """
        with self._change(f"rollback {name}"):
            self._require(name)
            entry = self._roster.previous(name)
            if entry is None:
                raise DeployError(f"model {name} has no version to go back to: none was promoted, or it was removed")
            return self._promote(entry)

    def _promote(self, entry: Entry) -> Entry:
        before = self._require(entry.name)
        if before.bundle is entry.bundle:
            return before
        self._prove(entry.served, versioned=True)
        self._server.management.set_default(entry.bundle)
        try:
            self._prove(entry.served, versioned=False)
        except BaseException:
            self._server.management.set_default(before.bundle)
            raise
        self._roster.promote(entry)
        return self._require(entry.name)

    def remove(self, name: str, version: str) -> Entry:
        """Refuse a version's new requests, answer those it has, end its workers.

        Without a front door nobody refuses them: then this waits until none comes.

        Raises:
            PolyheadError: it is its model's default, or the last that is served, or its requests do not end.
        """
        with self._change(f"remove {name}/{version}"):
            entry = self._require(name, version)
            others = [other for other in self._roster.entries(name) if other.bundle is not entry.bundle]
            if entry.default and others:
                there = ", ".join(other.version for other in others)
                raise DeployError(f"{name}/{version} is the default: promote another first (there: {there})")
            if len(self._roster.entries()) == 1:
                raise DeployError(f"{name}/{version} is all that is served: add another first, or stop the server")
            self._roster.leave(entry, leaving=True)
            self._prober.forget(entry.bundle)
            try:
                # Of a model's last version the bare name means it too.
                self._refuse([entry.bundle.title, *([] if others else [name])])
                self._wait_until_idle(entry)
                self._server.unload(entry.bundle)
            except BaseException:
                self._roster.leave(entry, leaving=False)
                self._prober.watch(entry.served, self._url())
                self._refuse([])
                raise
            self._roster.remove(entry)
            self._refuse([])
            return entry

    def _refuse(self, titles: Sequence[str]) -> None:
        if self._door is not None:
            self._door.refuse(titles)

    def _wait_until_idle(self, entry: Entry) -> None:
        deadline = time.monotonic() + self._drain_timeout
        while not self._server.idle([entry.bundle]):
            if time.monotonic() > deadline or self._closed.wait(POLL_SECONDS):
                raise DeployError(
                    f"{entry.bundle.title} still has requests after {self._drain_timeout:g} s "
                    "(polyhead_drain_timeout): it stays; have its clients ask for another version"
                )

    def _require(self, name: str, version: str | None = None) -> Entry:
        entry = self._roster.find(name, version)
        if entry is None:
            there = ", ".join(other.bundle.title for other in self._roster.entries())
            raise Unknown(f"{name if version is None else f'{name}/{version}'} is not served: there are {there}")
        return entry

    def _prove(self, served: Served, versioned: bool) -> None:
        """Every golden sample, on the way that clients' requests take."""
        samples = GoldenSamples(served.bundle, served.graph, served.device)
        with httpx.Client(timeout=self._server.settings.response_timeout, trust_env=False) as client:
            for row in range(samples.rows):
                self._replay(samples, client, row, versioned)

    def _replay(self, samples: GoldenSamples, client: httpx.Client, row: int, versioned: bool) -> None:
        deadline = time.monotonic() + TRIES_SECONDS
        while True:
            try:
                samples.replay(client, self._url(), row, versioned)
            except Overloaded as error:
                if time.monotonic() > deadline:
                    raise DeployError(f"{error}: the server has no room for a golden sample") from None
                time.sleep(POLL_SECONDS)
            else:
                return

    def close(self) -> None:
        """Make no more changes; one that is being made is given up, and waited for a little. Safe to call again."""
        self._closed.set()
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            self._lock.release()
