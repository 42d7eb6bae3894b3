"""A stop under load: not ready first, then everything that was accepted is answered, then the end with status 0."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e import versions
from tests.e2e.doors import require_nginx
from tests.server import Running, eventually, start

CLIENTS = 6
DELAY = 1.0  # seconds between "not ready" and the end of the listening
TLS = ssl.create_default_context()  # one for all: making one takes longer than a request
SECONDS = 1.0  # that a request takes, roughly


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return versions.make(tmp_path_factory.mktemp("draining"), "1.0", 1.0)


@dataclass
class Seen:
    """What clients saw; times are of the monotonic clock."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Clients:
    """Clients of a balancer: they begin a request, on a connection of its own, for as long as the server is ready."""

    def __init__(self, server: Running, rows: int) -> None:
        self.seen, self.unready = Seen(), threading.Event()
        self._server, self._rows = server, rows
        self._pool = ThreadPoolExecutor(CLIENTS + 2)
        self._running = [self._pool.submit(self._ask, seed) for seed in range(CLIENTS)]
        self._running.append(self._pool.submit(self._watch))

    def _watch(self) -> None:
        with httpx.Client(trust_env=False) as client:
            while client.get(f"{self._server.side}/v2/health/ready").status_code == 200:
                time.sleep(0.02)
        self.unready_at = time.monotonic()
        self.unready.set()

    def insist(self) -> None:
        """One more client, which asks small things until it is refused: it has not heard of readiness."""
        self._running.append(self._pool.submit(self._insist))

    def _insist(self) -> None:
        seed = 10_000
        while not self.seen.refused:
            seed += 1
            self._one(versions.rows(2, seed), may_refuse=True)

    def _ask(self, seed: int) -> None:
        while not self.unready.is_set():
            seed += CLIENTS
            self._one(versions.rows(self._rows, seed))

    def _one(self, sent, may_refuse: bool = False) -> None:
        try:
            with httpx.Client(base_url=self._server.url, timeout=60, trust_env=False, verify=TLS) as client:
                response = versions.ask(client, sent)
        except (httpx.ConnectError, httpx.ReadError) as error:
            self.seen.refused.append(time.monotonic())
            # Reset before a byte of an answer: the connection was in the kernel's queue when the listening ended. A
            # balancer's clients began before that, so of theirs this was lost; one that found no door began too late.
            lost = isinstance(error, httpx.ReadError) and not may_refuse
            if lost or not self.unready.is_set():
                self.seen.faults.append(repr(error))
        except httpx.HTTPError as error:
            self.seen.faults.append(repr(error))
        else:
            if versions.right(response, sent, 1.0):
                self.seen.answered.append(time.monotonic())
            else:
                self.seen.faults.append(f"{response.status_code} {response.text:.200}")

    def result(self) -> Seen:
        for running in self._running:
            running.result(60)
        self._pool.shutdown()
        return self.seen


def rows_for(server: Running, seconds: float) -> int:
    """How many rows make a request that takes about so long."""
    versions.ask(server.http, versions.rows(1000, 0))
    began = time.monotonic()
    assert versions.right(versions.ask(server.http, versions.rows(1000, 1)), versions.rows(1000, 1), 1.0)
    return min(9000, max(500, int(1000 * seconds / CLIENTS / (time.monotonic() - began))))


def started(bundle: Path, *flags: str) -> tuple[Running, list[psutil.Process]]:
    delays = ("--drain-delay", str(DELAY), "--drain-timeout", "40", "--probe-interval", "1")
    running = start([bundle], "--threads", "1", *delays, *flags)
    return running, running.family()


def ended(running: Running, family: list[psutil.Process]) -> int:
    status = running.process.wait(60)
    _, alive = psutil.wait_procs(family, timeout=10)
    for pipe in (running.process.stdout, running.process.stderr):
        pipe.close()
    running.http.close()
    assert alive == []
    return status


@pytest.mark.parametrize("door", [True, False], ids=["front door", "bare"])
def test_a_stop_under_load_loses_no_request_that_was_accepted(bundle: Path, door: bool):
    if door:
        require_nginx()
    running, family = started(bundle, *(["--front-door"] if door else []))
    clients = Clients(running, rows_for(running, SECONDS))
    assert eventually(lambda: len(clients.seen.answered) > CLIENTS, 60)
    if door:  # without, nobody else stops a client that goes on
        clients.insist()
    told = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    seen = clients.result()
    assert ended(running, family) == 0
    assert seen.faults == []
    assert clients.unready_at - told < DELAY, "not ready comes first"
    late = [moment for moment in seen.answered if moment > clients.unready_at]
    assert len(late) >= CLIENTS, "what was under way was answered"
    if door:
        assert min(seen.refused) >= told + DELAY, "no refusal before balancers had time to notice"


def test_a_second_signal_stops_at_once_and_says_what_was_lost(bundle: Path):
    require_nginx()
    running, family = started(bundle, "--drain-delay", "30", "--front-door")
    clients = Clients(running, rows_for(running, 2 * SECONDS))
    assert eventually(lambda: len(clients.seen.answered) > CLIENTS, 60)
    running.process.send_signal(signal.SIGTERM)
    assert clients.unready.wait(10)
    assert running.process.poll() is None
    asked = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    said = running.process.stderr.read()
    assert ended(running, family) == 0
    assert time.monotonic() - asked < 15
    assert clients.result().faults, "nothing was under way"
    assert "stopped before every request was answered" in said


def dies(running: Running, wanted: Callable[[psutil.Process], bool]) -> tuple[int, str]:
    """Kill a process of the family; the server's exit status and its last words."""
    family = running.family()
    next(process for process in family if wanted(process)).kill()
    status = running.process.wait(30)
    errors = running.process.stderr.read()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    running.process.stdout.close()
    running.process.stderr.close()
    running.http.close()
    return status, errors


def test_when_torchserve_dies_the_server_says_so_and_ends(bundle: Path):
    running = start([bundle], "--threads", "1")
    status, errors = dies(running, lambda process: "java" in process.name())
    assert status == 1
    assert "TorchServe ended by itself with status -9" in errors
