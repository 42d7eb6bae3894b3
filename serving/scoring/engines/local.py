"""Units scored by processes of this machine, each watched by one thread of the driver."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from polyhead.serving.cores import available_cores
from polyhead.serving.runtimes.base import resolve_device
from polyhead.serving.scoring.engines.base import Watch
from polyhead.serving.scoring.engines.hello import environment, hello
from polyhead.serving.scoring.job import Job
from polyhead.serving.scoring.process import COMMAND
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.supervisor import Ended, Supervisor
from polyhead.serving.scoring.task import Again
from polyhead.serving.scoring.units import Unit

__all__ = ["LocalEngine", "devices"]

TELL_SECONDS = 0.2


class LocalEngine:
    """As many worker processes as the machine has room for.

    Args:
        settings: of this run: how many workers, of how many threads.
        command: what runs a worker.
    """

    def __init__(self, settings: ScoreSettings, command: Sequence[str] = COMMAND) -> None:
        self.settings = settings
        self.command = command

    def run(
        self, job: Job, units: Sequence[Unit], watch: Watch, again: Mapping[int, Again] | None = None
    ) -> Iterator[Receipt]:
        """Score units; see `ScoringEngine.run`.

        A unit is handed out as soon as a worker is free, and a receipt waits for the caller in a queue of one: what is
        lost when the driver is killed is what the workers had in hand.
        """
        crew = _Crew(units, again or {})
        try:
            for number, device in enumerate(devices(self.settings, job.chosen["device"])[: len(units)]):
                supervisor = Supervisor(
                    number,
                    hello(job, self.settings, device),
                    self.settings.hang_seconds,
                    crew.tell,
                    environment(self.settings.threads),
                    self.command,
                )
                crew.employ(supervisor)
            yield from crew.receipts(watch)
        finally:
            crew.dismiss()


def devices(settings: ScoreSettings, device: str) -> list[str]:
    """The device of each worker.

    Args:
        device: `cpu`, `cuda`, or one of them, `cuda:1`.

    Raises:
        DeviceUnavailable: the device is not there.
    """
    if device == "cpu":
        return ["cpu"] * (settings.workers or max(1, available_cores() // settings.threads))
    resolve_device(device)
    if ":" in device:
        return [device] * (settings.workers or 1)
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{number % count}" for number in range(settings.workers or count)]


class _Crew:
    """Supervisors, each in its thread, taking units from one list."""

    def __init__(self, units: Sequence[Unit], again: Mapping[int, Again]) -> None:
        self._left = len(units)
        self._units = iter(units)
        self._again = again
        self._lock = threading.Lock()
        self._members: list[tuple[Supervisor, threading.Thread]] = []
        self._done: queue.Queue[Receipt | BaseException] = queue.Queue(1)
        self._latest: dict[int, Progress] = {}
        self._notes: list[Progress] = []
        self._over = False

    def employ(self, supervisor: Supervisor) -> None:
        """One more worker."""
        thread = threading.Thread(target=self._work, args=(supervisor,), name=f"worker {supervisor.worker}")
        thread.start()
        self._members.append((supervisor, thread))

    def tell(self, progress: Progress) -> None:
        """Keep a worker's progress until the caller waits."""
        with self._lock:
            self._latest[progress.worker] = progress
            if progress.note:
                self._notes.append(progress)

    def receipts(self, watch: Watch) -> Iterator[Receipt]:
        """Receipts as they come, until there is one of each unit."""
        while self._left:
            with suppress(queue.Empty):
                done = self._done.get(timeout=TELL_SECONDS)
                if isinstance(done, BaseException):
                    raise done
                self._left -= 1
                self._report(watch)
                yield done
                continue
            self._report(watch)

    def _report(self, watch: Watch) -> None:
        with self._lock:
            told = [*self._notes, *(last for last in self._latest.values() if not last.note)]
            self._notes.clear()
            self._latest.clear()
        for progress in told:
            watch(progress)

    def dismiss(self) -> None:
        """End every worker, and wait until it is gone."""
        self._over = True
        for supervisor, _ in self._members:
            supervisor.stop()
        for _, thread in self._members:
            while thread.is_alive():
                with suppress(queue.Empty):  # it may be waiting to hand something in
                    self._done.get_nowait()
                thread.join(0.05)

    def _hand_in(self, done: Receipt | BaseException) -> None:
        """Wait for the caller to take it; not once nobody takes anything any more."""
        while not self._over:
            with suppress(queue.Full):
                self._done.put(done, timeout=TELL_SECONDS)
                return

    def _next(self) -> Unit | None:
        with self._lock:
            return None if self._over else next(self._units, None)

    def _work(self, supervisor: Supervisor) -> None:
        try:
            while (unit := self._next()) is not None:
                self._hand_in(supervisor.score(unit, self._again.get(unit.ordinal)))
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._hand_in(error)
        finally:
            supervisor.close()
            self.tell(Progress(supervisor.worker, "ended"))
