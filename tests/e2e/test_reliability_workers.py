"""Reliability test 1: workers killed with -9 in the middle of a batch, again and again, under load.

`POLYHEAD_WORKER_KILLS=100` for the long run; `POLYHEAD_WORKER_KILLS_OUT` names a file for the figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from polyhead.serving.client import Client
from tests.e2e.doors import require_nginx
from tests.server import Running, eventually, serving

LONG = "POLYHEAD_WORKER_KILLS"
KILLS = int(os.environ.get(LONG, "2"))
CLIENTS = 6
RECOVERY = 60.0  # seconds, on a machine as busy as any: what it takes is reported
TEXTS = [f"turn on the kitchen light at {n} and set the bedroom to {n % 12 + 15} degrees" for n in range(8)]
JSON = {"Content-Type": "application/json"}


def workers(running: Running) -> list[psutil.Process]:
    """The processes that answer."""
    found = []
    for process in running.family():
        try:
            if any("model_service_worker" in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def load(ask, clients: int = CLIENTS) -> Iterator[list[tuple[float, float, object]]]:
    """Clients that ask one after the other; every answer with the times when it was asked for and when it came."""
    answers: list[tuple[float, float, object]] = []
    stopping = threading.Event()

    def work() -> None:
        while not stopping.is_set():
            begin = time.monotonic()
            try:
                outcome = ask()
            except Exception as error:
                outcome = error
            answers.append((begin, time.monotonic(), outcome))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def killed(running: Running, count: int, wanted: int) -> list[float]:
    """Kill one worker after the other at random moments; seconds until each time all are back and answer."""
    recoveries, moments = [], random.Random(11)
    for _ in range(count):
        assert eventually(lambda: len(workers(running)) == wanted, 60)
        time.sleep(moments.uniform(0.2, 0.6))
        victim = moments.choice(workers(running))
        os.kill(victim.pid, signal.SIGKILL)
        start = time.monotonic()
        assert eventually(lambda pid=victim.pid: ready(running, wanted, pid), 60), "no worker came back"
        recoveries.append(time.monotonic() - start)
    return recoveries


def ready(running: Running, wanted: int, victim: int) -> bool:
    """Whether TorchServe has as many workers as it should, none of them the one that was killed."""
    answer = httpx.get(f"{running.management}/models/smarthome", trust_env=False, timeout=10)
    if answer.status_code != 200:
        return False
    there = {int(worker["pid"]) for worker in answer.json()[0]["workers"] if worker["status"] == "READY"}
    return len(there) == wanted and victim not in there


def report(name: str, recoveries: Sequence[float], answers: Sequence[tuple[float, float, object]], **more) -> dict:
    seconds = sorted(over - begin for begin, over, _ in answers)
    figures = {
        "test": name,
        "kills": len(recoveries),
        "answers": len(answers),
        "recovery_seconds": dict(
            zip(("p50", "p95", "max"), np.round(np.quantile(recoveries, [0.5, 0.95, 1]), 2).tolist(), strict=True)
        ),
        "answer_seconds_max": round(seconds[-1], 2),
        **more,
    }
    print(json.dumps(figures))
    if "POLYHEAD_WORKER_KILLS_OUT" in os.environ:
        with Path(os.environ["POLYHEAD_WORKER_KILLS_OUT"]).open("a") as out:
            out.write(json.dumps(figures) + "\n")
    return figures


def test_the_client_library_loses_nothing_when_the_only_worker_is_killed(smarthome_bundle: Path) -> None:
    with (
        serving([smarthome_bundle], "--threads", "1", "--max-batch-size", "4") as running,
        Client(running.url, deadline=120, retries=100) as client,
    ):
        expected = client.predict_json("smarthome", TEXTS, heads=["intent", "slots"])
        with load(lambda: client.predict_json("smarthome", TEXTS, heads=["intent", "slots"])) as answers:
            recoveries = killed(running, KILLS, 1)
    lost = [outcome for _, _, outcome in answers if isinstance(outcome, Exception)]
    figures = report("one worker, client library", recoveries, answers, lost=len(lost))
    assert lost == []
    assert alike([outcome for _, _, outcome in answers], expected)
    assert max(recoveries) <= RECOVERY, figures


def alike(answers: Sequence[object], expected: Sequence[dict]) -> bool:
    """Whether every answer says what it said before: the same labels and entities, scores as close as batches allow."""
    for answer in answers:
        for row, other in zip(answer, expected, strict=True):
            if row["intent"]["label"] != other["intent"]["label"]:
                return False
            if abs(row["intent"]["score"] - other["intent"]["score"]) > 1e-4:
                return False
            if [e["text"] for e in row["slots"]["entities"]] != [e["text"] for e in other["slots"]["entities"]]:
                return False
    return True


@pytest.mark.skipif(LONG not in os.environ, reason=f"long: {LONG}=100; tests/e2e/test_frontdoor.py has a short one")
@pytest.mark.parametrize("workers_wanted", [2])
def test_through_the_door_plain_clients_lose_nothing_while_a_second_worker_lives(
    smarthome_bundle: Path, workers_wanted: int
) -> None:
    require_nginx()
    body = json.dumps({"instances": [{"text": text} for text in TEXTS], "heads": ["intent", "slots"]}).encode()
    flags = ("--front-door", "--workers", str(workers_wanted), "--threads", "1", "--max-batch-size", "4")
    with serving([smarthome_bundle], *flags) as running, httpx.Client(timeout=60, trust_env=False) as http:
        url = f"{running.url}/predictions/smarthome"
        expected = http.post(url, content=body, headers=JSON).json()["predictions"]
        with load(lambda: http.post(url, content=body, headers=JSON)) as answers:
            recoveries = killed(running, KILLS, workers_wanted)
    statuses = Counter(getattr(outcome, "status_code", repr(outcome)) for _, _, outcome in answers)
    figures = report("two workers, front door, no retries", recoveries, answers, statuses=statuses)
    assert set(statuses) == {200}, figures
    assert alike([outcome.json()["predictions"] for _, _, outcome in answers], expected)
    assert max(recoveries) <= RECOVERY, figures
