"""One worker, kept alive: it is started again when it dies, and what it died of is kept from killing the next."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from polyhead.serving import errors as serving_errors
from polyhead.serving.scoring import errors as scoring_errors
from polyhead.serving.scoring.beats import Beats
from polyhead.serving.scoring.deaths import Deaths
from polyhead.serving.scoring.errors import ScoringError, UnitFailed
from polyhead.serving.scoring.process import COMMAND, Died, Ended, WorkerProcess
from polyhead.serving.scoring.progress import Progress, State
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.task import Again, Task
from polyhead.serving.scoring.units import Unit

__all__ = ["Ended", "Supervisor", "error_of"]

LOADING_SECONDS = 600.0  # at least, for a bundle to load; nothing of it beats
STARTS = 3  # deaths in a row before a worker was ready
KILLED = 10  # the same, by a signal that others may have sent
TRANSIENT = 4  # failures of a unit in a row that may be over a moment later
FIRST_WAIT, MOST_WAIT = 1.0, 15.0  # seconds
CLASSES: dict[str, type[serving_errors.PolyheadError]] = {
    name: getattr(module, name)
    for module in (serving_errors, scoring_errors)
    for name in module.__all__
    if isinstance(getattr(module, name), type)
    and issubclass(getattr(module, name), serving_errors.PolyheadError)
    and not issubclass(getattr(module, name), serving_errors.RequestError)
}


class Supervisor:
    """Has units scored by one worker process at a time.

    Args:
        worker: its number.
        hello: the worker's first line; see `polyhead.serving.scoring.engines.hello`.
        hang_seconds: without a sign of life, after which it counts as hung.
        tell: told of what it does, from the thread that calls `score`.
        environment: of the process, added to ours.
        command: what runs it.
    """

    def __init__(
        self,
        worker: int,
        hello: Mapping[str, Any],
        hang_seconds: float,
        tell: Callable[[Progress], None] = lambda _progress: None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.worker = worker
        self.hello = hello
        self.hang_seconds = hang_seconds
        self.tell = tell
        self.environment = environment or {}
        self.command = command
        self.process: WorkerProcess | None = None
        self._wanted = True

    def start(self) -> None:
        """Start the worker, unless it runs; returns when it is ready.

        Raises:
            PolyheadError: what it said on why it cannot work.
            Ended: `stop` was called.
        """
        deaths = 0
        while self.process is None:
            self._tell("restarting" if deaths else "starting")
            process = WorkerProcess(self.command, self.environment, lambda: self._wanted)
            try:
                answer = process.ask(self.hello, max(self.hang_seconds, LOADING_SECONDS))
            except Died as died:
                process.close()
                deaths += 1
                if deaths >= (STARTS if died.death.sure else KILLED):
                    raise ScoringError(_unstarted(died, deaths)) from None
                self._wait(min(MOST_WAIT, FIRST_WAIT * deaths))
            except BaseException:
                process.close()
                raise
            else:
                if "error" in answer:
                    process.close()
                    raise error_of(answer)
                self.process = process

    def score(self, unit: Unit, again: Again | None = None) -> Receipt:
        """Have one unit scored, whatever dies on the way.

        Raises:
            ScoringError: it cannot be.
            Ended: `stop` was called.
        """
        deaths, failures = Deaths(unit), 0
        while True:
            self.start()
            task = Task(unit, uuid.uuid4().hex, deaths.care, deaths.killers, again)
            try:
                answer = self._ask(task)
            except Died as died:
                self.close()
                self._tell("restarting", unit, deaths.add(died.death))
                continue
            if "receipt" in answer:
                self._tell("scoring", None)
                return Receipt.of(answer["receipt"])
            failures += 1
            if not answer["transient"] or failures > TRANSIENT:
                raise _unit_error(deaths, answer, failures)
            self._tell("scoring", unit, f"{deaths.name}: {answer['error']}: it is tried again")
            self._wait(min(MOST_WAIT, FIRST_WAIT * 2 ** (failures - 1)))

    def _ask(self, task: Task) -> dict[str, Any]:
        assert self.process is not None
        self.process.beats.clear()  # of the unit before, whose steps must not be blamed for this one
        return self.process.ask(task.plain(), self.hang_seconds, lambda beats: self._look(task.unit, beats))

    def _look(self, unit: Unit, beats: Beats) -> None:
        places = beats.places()
        stage = max((place.step.stage for place in places), key=_ORDER.index, default="")
        self.tell(Progress(self.worker, "scoring", unit.ordinal, min(beats.rows, unit.rows), unit.rows, stage))

    def _tell(self, state: State, unit: Unit | None = None, note: str = "") -> None:
        if unit is None:
            self.tell(Progress(self.worker, state, note=note))
        else:
            self.tell(Progress(self.worker, state, unit.ordinal, 0, unit.rows, note=note))

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self._wanted:
                raise Ended
            time.sleep(0.05)

    def stop(self) -> None:
        """Have `start` and `score`, which another thread is in, raise `Ended`."""
        self._wanted = False

    def close(self) -> None:
        """End the worker. Called by the thread that calls `score`; after it `score` starts another."""
        if self.process is not None:
            process, self.process = self.process, None
            with suppress(OSError):
                process.close()


_ORDER = ("read", "decode", "collate", "forward", "answer")


def _unstarted(died: Died, deaths: int) -> str:
    said = died.death.said.splitlines()
    last = f"; it said: {said[-1]}" if said else ""
    return f"a worker died {deaths} times before it was ready, the last time of {died.death.cause}{last}"


def error_of(answer: Mapping[str, Any]) -> Exception:
    """What a worker raised, raised here."""
    return CLASSES.get(answer["type"], ScoringError)(answer["error"])


def _unit_error(deaths: Deaths, answer: Mapping[str, Any], failures: int) -> Exception:
    if answer["type"] in CLASSES:
        return error_of(answer)
    times = f"{failures} times, the last time with " if failures > 1 else "with "
    return UnitFailed(f"{deaths.name}: failed {times}{answer['error']}")
