"""TorchServe's process and all that descends from it: started, listened to, stopped without leaving one behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from polyhead.serving.parent import die_with_parent

__all__ = ["STOP_SECONDS", "Process"]

STOP_SECONDS = 15.0  # to stop by itself, before it is killed
# What TorchServe 0.12.0 and its worker print when a worker ends while it loads; it would be restarted for minutes.
WORKER_DIED = ("Backend worker process died.", "Load model failed: ", "Auto recovery failed again")


class Process:
    """A process in a session of its own.

    Args:
        command, folder, environment: as `subprocess.Popen` takes them.
        log: told every line that is printed once `speaks` is set; the last lines are kept for an error's message.
        speaks: from the beginning.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: Callable[[str], None],
        speaks: bool,
    ) -> None:
        self.speaks = speaks
        self.worker_deaths = 0  # that were told of
        self._log = log
        self._tail: deque[str] = deque(maxlen=60)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and one signal to the group reaches every worker
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._pump, args=(self._process.stdout,), name="torchserve", daemon=True).start()

    def _pump(self, lines: IO[str]) -> None:
        for line in lines:
            self._tail.append(line.rstrip("\n"))
            self.worker_deaths += any(words in line for words in WORKER_DIED)
            if self.speaks:
                self._log(line.rstrip("\n"))

    def exit_code(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def tail(self) -> str:
        """The last lines that TorchServe and the workers printed."""
        return "\n".join(self._tail.copy())

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop it and its family: by asking, and after some seconds by force."""
        process = self._process
        family = _family(process.pid)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _kill_all(process.pid, family)


def _family(pid: int) -> list[psutil.Process]:
    """A process's descendants."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill_all(group: int, family: Sequence[psutil.Process]) -> None:
    """Kill what is left of a process group and of a family, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=STOP_SECONDS)
