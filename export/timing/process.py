"""A contender's own process, as the one that times sees it: questions in, answers out, its end noticed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Self

import orjson

from polyhead.export.timing.contenders import Contender, NetworkPlace
from polyhead.serving.bundle import Bundle

__all__ = ["ContenderProcess", "Refused"]

LIMIT = 900.0  # seconds for one answer: loading a large graph, or a few passes of a slow one
STOP_SECONDS = 5.0


class Refused(Exception):
    """A contender that is not timed, and why.

    Attributes:
        wrong: it answered, and not as the golden samples say.
    """

    def __init__(self, reason: str, wrong: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wrong = wrong


class ContenderProcess:
    """A fresh Python process that loads one contender; a context manager that ends it.

    Args:
        bundle: an opened bundle.
        contender: to load.
        network: where the eager network is; None where it is not timed.
        threads: of one forward pass on the CPU.
        limit: seconds that an answer may take.
    """

    def __init__(
        self,
        bundle: Bundle,
        contender: Contender,
        network: NetworkPlace | None,
        threads: int,
        limit: float = LIMIT,
    ) -> None:
        self.contender = contender
        self._limit = limit
        place = {} if network is None else asdict(network)
        self._job = {
            "bundle": str(bundle.folder.resolve()),
            "digest": bundle.digest,
            "contender": asdict(contender),
            "network": {name: None if value is None else str(value) for name, value in place.items()},
            "threads": threads,
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        # -P: nothing that lies where the user stands is imported in a library's place.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "polyhead.export.timing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self) -> None:
        """Load it, and prove its answers.

        Raises:
            Refused: it cannot be loaded, or answers wrong.
        """
        self._ask(self._job)

    def passes(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each forward pass at this batch size, for about so long.

        Raises:
            Refused: it answers wrong, or not at all.
        """
        return [float(value) for value in self._ask({"batch": batch, "seconds": seconds})["passes"]]

    def close(self) -> None:
        """End it. Safe to call again."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it ended with a question unread
                    pipe.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._limit, process.kill)
        timer.start()
        try:
            process.stdin.write(orjson.dumps(question) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if not line:
            raise Refused(self._why_it_ended(late))
        answer: dict[str, Any] = orjson.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"], answer["wrong"])
        return answer

    def _why_it_ended(self, late: bool) -> str:
        if late:
            return f"gave no answer in {self._limit:g} s"
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"its process {how}{f': {lines[-1]:.300}' if lines else ''}"
