"""Readiness of a real server: false where a worker hangs or cannot come back, true after it, and under overload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e import versions
from tests.server import Running, eventually, serving

INTERVAL = 1.0
WINDOW = 3 * INTERVAL
QUEUE = 8  # requests that wait; more get 503
CLIENTS = 5 * QUEUE


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return versions.make(tmp_path_factory.mktemp("health"), "1.0", 1.0)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    # One request a batch: else a batch empties the whole queue, and it is never full.
    flags = ("--set", f"polyhead_job_queue_size={QUEUE}", "--max-batch-size", "1", "--threads", "1")
    with serving([bundle], "--probe-interval", str(INTERVAL), *flags) as running:
        yield running


def ready(server: Running) -> bool:
    return httpx.get(f"{server.side}/v2/health/ready", trust_env=False).status_code == 200


def worker(server: Running) -> int:
    return next(p.pid for p in server.family() if any("model_service_worker" in part for part in p.cmdline()))


def health_check(server: Running) -> tuple[int, str]:
    command = [sys.executable, "-m", "polyhead.serving.torchserve.health", server.side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_server_with_five_times_its_load_is_still_ready(server: Running):
    """Goodput is for others to measure; here, nobody may take a busy server from its balancer."""
    assert eventually(lambda: ready(server))
    stop, statuses = threading.Event(), []

    def ask(seed: int) -> None:
        sent = versions.rows(100, seed)
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                statuses.append(versions.ask(client, sent).status_code)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for seed in range(CLIENTS):
            pool.submit(ask, seed)
        try:
            assert eventually(lambda: 503 in statuses, 20)
            found = []
            end = time.monotonic() + 3 * WINDOW
            while time.monotonic() < end:
                found.append(ready(server))
                time.sleep(0.1)
        finally:
            stop.set()
    assert set(statuses) == {200, 503}
    assert statuses.count(503) > statuses.count(200) / 4, "this was no overload"
    assert all(found), httpx.get(f"{server.side}/v2/health/ready", trust_env=False).text


def test_a_worker_that_hangs_is_unready_and_ready_again_after_it(server: Running):
    assert eventually(lambda: ready(server))
    pid = worker(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        # Three intervals, and the time that a busy machine takes to ask.
        assert eventually(lambda: not ready(server), WINDOW + 5)
        status, said = health_check(server)
        assert status == 1
        assert "scaled/1.0" in said
        assert httpx.get(f"{server.side}/v2/health/live", trust_env=False).status_code == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: ready(server), 20)
    assert health_check(server) == (0, "")


def test_a_worker_that_cannot_come_back_is_unready_until_it_can(server: Running, bundle: Path):
    assert eventually(lambda: ready(server))
    hidden = bundle.with_name("hidden")
    bundle.rename(hidden)
    try:
        os.kill(worker(server), signal.SIGKILL)
        assert eventually(lambda: not ready(server), WINDOW + 5)
        (model,) = httpx.get(f"{server.side}/v2/health/ready", trust_env=False).json()["models"]
        assert (model["ready"], model["name"]) == (False, "scaled")
    finally:
        hidden.rename(bundle)
    assert eventually(lambda: ready(server), 60)  # TorchServe tries again after 1, 2, 3, 5, 8 … seconds
    sent = versions.rows(3, 0)
    assert eventually(lambda: versions.right(versions.ask(server.http, sent), sent, 1.0), 30)
