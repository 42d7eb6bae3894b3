"""A contender's server: started on its cores, ready when it answers rightly, paused while others run, stopped whole."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.peers.machine import Pinning

__all__ = ["DidNotStart", "Process", "free_port", "post"]

START_SECONDS = 120.0
STOP_SECONDS = 20.0
# One thread where a library asks the environment, and no way out of the machine.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "BENTOML_DO_NOT_TRACK": "true",
    "PYTHONWARNINGS": "ignore",
}


class DidNotStart(RuntimeError):
    """A server ended, or did not answer rightly in time; the message ends with what it printed last."""


class Process:
    """One server and all its processes.

    Args:
        name: of the contender.
        command: to run.
        folder: where its log goes, and where it runs.
        pinning: its cores.
        ready: asked until it says None; otherwise it says what is amiss.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, pinning: Pinning, ready: Callable[[], str | None]
    ) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                [*pinning.server, *command],
                cwd=folder,
                env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await(ready)
        except BaseException:
            self.stop()
            raise

    def _await(self, ready: Callable[[], str | None]) -> None:
        deadline, amiss = time.monotonic() + START_SECONDS, "no answer"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DidNotStart(f"{self.name} ended with {self._process.returncode}: {self.tail()}")
            try:
                found = ready()
            except (OSError, http.client.HTTPException) as error:
                found = f"{type(error).__name__}: {error}"
            if found is None:
                return
            amiss = found
            time.sleep(0.1)
        raise DidNotStart(f"{self.name} did not answer rightly within {START_SECONDS:.0f} s ({amiss}): {self.tail()}")

    def tail(self) -> str:
        """The last of what it printed."""
        return " | ".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])[-1000:]

    def _family(self) -> list[psutil.Process]:
        """Parents before children."""
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def pause(self) -> None:
        """Take the cores away from all its processes, so that the next contender has them to itself."""
        self._send(signal.SIGSTOP, self._family())

    def resume(self) -> None:
        """Go on; children first, so that no parent finds one silent."""
        self._send(signal.SIGCONT, self._family()[::-1])

    def _send(self, number: int, family: Sequence[psutil.Process]) -> None:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def memory(self) -> int:
        """Bytes of all its processes, shared pages counted once each process."""
        total = 0
        for process in self._family():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def stop(self) -> None:
        """End it and every process it left behind. Safe to call again."""
        family = self._family()
        self._send(signal.SIGCONT, family[::-1])
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        _, alive = psutil.wait_procs(family, timeout=2.0)
        self._send(signal.SIGKILL, alive)
        self._process.wait()


def free_port() -> int:
    """A port of the loopback that nobody has, nor the two after it: TorchServe takes three."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if all(_is_free(port + step) for step in (1, 2)):
                return port


def _is_free(port: int) -> bool:
    if port > 65_535:
        return False
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def post(port: int, request: bytes, timeout: float = 30.0) -> tuple[int, bytes]:
    """Send one whole request over a connection of its own.

    Returns:
        Status and body.

    Raises:
        OSError, http.client.HTTPException: there was no whole answer.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        return response.status, response.read()
