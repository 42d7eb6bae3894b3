"""A real server: TorchServe started by `polyhead serve`, with no Java on the PATH."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.command import POLYHEAD, without_java


class Running:
    """A `polyhead serve` process that has said it is ready."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, object]) -> None:
        self.process = process
        self.ready = ready
        self.url = str(ready["url"])
        self.side = str(ready["side"])
        self.management = str(ready["management"])
        self.metrics = str(ready["metrics"])
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def predict(self, model: str, body: object, **options: object) -> httpx.Response:
        return self.http.post(f"/predictions/{model}", json=body, **options)

    def counts(self, model: str) -> dict[str, int]:
        """Batches, requests, forward passes and rows, as the worker counts them."""
        response = httpx.get(f"{self.management}/models/{model}", params={"customized": "true"}, trust_env=False)
        return response.json()[0]["customizedMetadata"]["counts"]

    def family(self) -> list[psutil.Process]:
        """Java and the workers."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[psutil.Process]]:
        """Send a signal; returns the exit status and what is left of the family."""
        family = self.family()
        self.process.send_signal(number)
        status = self.process.wait(30)
        _, alive = psutil.wait_procs(family, timeout=15)
        self.close()
        return status, alive

    def close(self) -> None:
        """Give back what this process holds of a server that has ended."""
        self.http.close()
        self.process.stdout.close()
        self.process.stderr.close()


def start(bundles: Sequence[Path], *flags: str) -> Running:
    """Start a server on free ports and wait until it says it is ready.

    Golden samples are not sent again, unless the flags say so: tests count requests and batches.
    """
    quiet = ("--probe-interval", "3600")
    command = [str(POLYHEAD), "serve", *map(str, bundles), "--port", "0", "--json", *quiet, *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=without_java(), start_new_session=True
    )
    line = process.stdout.readline()
    if not line:
        status, said = process.wait(30), process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        raise AssertionError(f"polyhead serve ended with {status}:\n{said}")
    return Running(process, json.loads(line))


@contextmanager
def serving(bundles: Sequence[Path], *flags: str) -> Iterator[Running]:
    """A server for a while; it must end cleanly."""
    running = start(bundles, *flags)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            status, alive = running.stop()
            assert status == 0
            assert alive == []
        else:  # the test has ended it
            running.close()


def eventually(condition, seconds: float = 15.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
