"""Reliability test 8: under steady load memory, descriptors and threads of every process stay as they are.

`POLYHEAD_SOAK_SECONDS=7200` for the long run, `POLYHEAD_SOAK_RATE` for another load; `POLYHEAD_SOAK_OUT` names a file
for the samples, which `python -m benchmarks.soak FILE PLOT.png` draws.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.soak import slopes
from tests.e2e import openloop
from tests.e2e.doors import require_nginx
from tests.server import Running, serving

SECONDS = float(os.environ.get("POLYHEAD_SOAK_SECONDS", "15"))
RATE = float(os.environ.get("POLYHEAD_SOAK_RATE", "20"))
LONG = 3600.0  # seconds from which on a slope of memory tells: Java's heap takes its steps in the first minutes
GROWTH = 12.0  # MiB an hour that each role may grow by in a long run
JSON = "application/json"
GOOD = json.dumps({"instances": [{"image": [[0] * 8] * 8}]}).encode()
BAD = b'{"instances": [{"image": "x"}]}'


def role(process: psutil.Process, launcher: int) -> str:
    line = " ".join(process.cmdline())
    if process.pid == launcher:
        return "launcher"
    for word, name in (("org.pytorch.serve", "java"), ("model_service_worker", "worker"), ("nginx", "nginx")):
        if word in line:
            return name
    return "other"


def sample(launcher: int) -> dict[str, dict[str, float]]:
    """By role: resident memory in MiB, descriptors, threads, processes."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(("mib", "fds", "threads", "processes"), 0.0))
    root = psutil.Process(launcher)
    for process in [root, *root.children(recursive=True)]:
        try:
            one = found[role(process, launcher)]
            with process.oneshot():
                numbers = (process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), 1)
        except psutil.Error:
            continue
        for name, number in zip(("mib", "fds", "threads", "processes"), numbers, strict=True):
            one[name] += number
    return dict(found)


@pytest.fixture(scope="module")
def soaked(digits_bundle: Path) -> Iterator[Running]:
    require_nginx()
    with serving([digits_bundle], "--front-door", "--workers", "2", "--probe-interval", "5") as running:
        yield running


def test_under_steady_load_nothing_grows(soaked: Running) -> None:
    url, launcher = f"{soaked.url}/predictions/digits", soaked.process.pid
    loads = [
        openloop.started(url, RATE, SECONDS, 60, JSON, GOOD),
        openloop.started(url, RATE / 10, SECONDS, 60, JSON, BAD),
    ]
    samples, start, pause = [], time.monotonic(), min(10.0, SECONDS / 20)
    while any(load.poll() is None for load in loads) and time.monotonic() - start < SECONDS:
        time.sleep(pause)
        samples.append({"seconds": time.monotonic() - start, "roles": sample(launcher)})
    good, bad = (openloop.outcomes(load) for load in loads)
    figures = {
        "seconds": round(samples[-1]["seconds"]),
        "requests": len(good) + len(bad),
        "statuses": Counter(str(one.status) for one in (*good, *bad)),
        "mib_an_hour": {name: round(slope, 2) for name, slope in slopes(samples).items()},
    }
    print(json.dumps(figures))
    if "POLYHEAD_SOAK_OUT" in os.environ:
        Path(os.environ["POLYHEAD_SOAK_OUT"]).write_text(json.dumps({"figures": figures, "samples": samples}))
    assert {one.status for one in good} == {200}, figures
    assert {one.status for one in bad} == {422}, figures
    settled = samples[len(samples) // 3 :]
    for name in settled[0]["roles"]:
        for what, slack in (("fds", 8), ("threads", 4), ("processes", 0)):
            seen = np.array([one["roles"][name][what] for one in settled])
            half = len(seen) // 2
            assert np.median(seen[half:]) <= np.median(seen[:half]) + slack, (name, what, seen.tolist())
    if SECONDS >= LONG:
        assert max(slopes(samples).values()) <= GROWTH, figures
