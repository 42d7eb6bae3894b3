"""Units scored through Ray Data, on this machine or on a cluster: the same worker processes, placed by Ray.

Of Ray only the placing is used. A unit is a row of a data set whose one column is a task; an actor has it scored by the
very supervisor of the local engine, and what comes back is a receipt. Ray's own checkpoints are not used.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from polyhead.serving.cores import available_cores
from polyhead.serving.errors import DeviceUnavailable, PolyheadError
from polyhead.serving.raystart import LOCAL_ONLY, hushed, import_ray, last_line, own_signals, require_loopback
from polyhead.serving.scoring.engines.base import Watch
from polyhead.serving.scoring.engines.hello import environment, hello
from polyhead.serving.scoring.errors import JobRefused, ScoringError
from polyhead.serving.scoring.job import Job
from polyhead.serving.scoring.process import COMMAND
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.supervisor import Supervisor, error_of
from polyhead.serving.scoring.task import Again, Task
from polyhead.serving.scoring.units import Unit

__all__ = ["RayEngine"]

STORE_BYTES = 100 * 1024 * 1024  # of Ray's objects: tasks and receipts are all that goes through it
# Of every job of Ray Data it says on standard error that its actors may not be restarted, as if that were a failure.
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
STDERR = 2  # what Ray itself writes to, whatever Python calls its standard error
FAILURES = 3  # of Ray in a row
MOST_BLOCKS = 10_000  # a block is a unit up to so many; Ray's driver keeps track of every one


class RayEngine:
    """Actors of Ray Data.

    Args:
        settings: of this run: how many workers, of how many threads.
        address: of a running cluster, as `ray.init` takes it; one is started on this machine where None, and ended
            with the job. Where Ray is initialised already, that is used.
        command: what runs a worker.
    """

    def __init__(self, settings: ScoreSettings, address: str | None = None, command: Sequence[str] = COMMAND) -> None:
        self._ray = _ray(local=address is None)
        self.settings = settings
        self.address = address
        self.command = tuple(command)

    def run(
        self, job: Job, units: Sequence[Unit], watch: Watch, again: Mapping[int, Again] | None = None
    ) -> Iterator[Receipt]:
        """Score units; see `ScoringEngine.run`. Progress is told with every receipt."""
        again = again or {}
        left = {unit.ordinal: _text(Task(unit, "", again=again.get(unit.ordinal)).plain()) for unit in units}
        failures = 0
        with self._connected():
            while left:
                try:
                    for answer in self._answers(job, list(left.values())):
                        receipt = self._receipt(answer, watch)
                        failures = 0
                        if left.pop(receipt.ordinal, None) is not None:  # Ray may do a task twice
                            yield receipt
                except self._ray.exceptions.RayError as error:
                    failures += 1
                    last = last_line(error)
                    if failures == FAILURES:
                        raise ScoringError(
                            f"Ray failed {failures} times before a unit was done, at last with: {last}: "
                            "look at the cluster, then go on with --resume"
                        ) from None
                    watch(Progress(0, "restarting", note=f"Ray failed ({last}): the units in hand begin again"))

    def _receipt(self, answer: Mapping[str, Any], watch: Watch) -> Receipt:
        for note in answer["notes"]:
            watch(Progress(answer["worker"], "restarting", note=note))
        if "error" in answer:
            raise error_of(answer)
        receipt = Receipt.of(answer["receipt"])
        watch(Progress(answer["worker"], "scoring", receipt.ordinal, receipt.read, receipt.read))
        return receipt

    def _answers(self, job: Job, tasks: Sequence[str]) -> Iterator[dict[str, Any]]:
        data, settings = self._ray.data, self.settings
        gpu = job.chosen["device"] != "cpu"
        most = self._most_workers(gpu)
        rows = [{"task": task} for task in tasks]
        answers = data.from_items(rows, override_num_blocks=min(len(tasks), MOST_BLOCKS)).map_batches(
            _Actor,
            fn_constructor_kwargs={
                "hello": hello(job, settings, "cuda:0" if gpu else "cpu"),  # Ray shows an actor its own GPU alone
                "settings": settings.model_dump(mode="json"),
                "command": self.command,
            },
            batch_size=1,
            # One task at a time: a unit that waits behind another at the end of a job makes it longer by a unit; the
            # next one comes in milliseconds.
            compute=data.ActorPoolStrategy(
                size=min(settings.workers or most, most, len(tasks)), max_tasks_in_flight_per_actor=1
            ),
            num_cpus=min(settings.threads, 1) if gpu else settings.threads,
            **({"num_gpus": 1} if gpu else {}),
        )
        for row in answers.iter_rows():
            yield orjson.loads(row["answer"])

    def _most_workers(self, gpu: bool) -> int:
        there = self._ray.cluster_resources()
        if gpu:
            if not there.get("GPU"):
                raise DeviceUnavailable("Ray has no GPU here: use --device cpu, or a cluster that has one")
            return int(there["GPU"])
        if there.get("CPU", 0) < self.settings.threads:
            raise JobRefused(
                f"Ray has {there.get('CPU', 0):g} cores, a worker wants {self.settings.threads}: lower --threads"
            )
        return int(there["CPU"] // self.settings.threads)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Ray, ready; of a cluster of our own nothing is left afterwards."""
        if self._ray.is_initialized():
            yield
            return
        own: dict[str, Any] = {"address": self.address}
        if self.address is None:
            own = {"address": "local", "num_cpus": available_cores(), "object_store_memory": STORE_BYTES}
            own["include_dashboard"] = False
        with hushed(STDERR), own_signals():
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
        try:
            if self.address is None:
                require_loopback(f"import polyhead before ray, or set {LOCAL_ONLY}=0")
            yield
        finally:
            self._ray.shutdown()


class _Actor:
    """One worker, somewhere in the cluster."""

    def __init__(self, hello: Mapping[str, Any], settings: Mapping[str, Any], command: Sequence[str]) -> None:
        own = ScoreSettings.model_validate(settings)
        self._notes: list[str] = []
        self._number = os.getpid()
        self._supervisor = Supervisor(
            self._number, hello, own.hang_seconds, self._tell, environment(own.threads), command
        )

    def _tell(self, progress: Progress) -> None:
        if progress.note:
            self._notes.append(progress.note)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """The answer to one task: a receipt, or what the driver must raise."""
        task = Task.of(orjson.loads(batch["task"][0]))
        answer: dict[str, Any]
        try:
            answer = {"receipt": self._supervisor.score(task.unit, task.again).plain()}
        except PolyheadError as error:  # raised here, Ray would wrap it in a page of its own
            answer = {"error": str(error), "type": type(error).__name__}
        answer |= {"worker": self._number, "notes": self._notes}
        self._notes = []
        return {"answer": [_text(answer)]}


def _ray(local: bool) -> Any:
    """Ray, imported so that it keeps quiet: no reports to its maker, no progress bars, no word of its inner matters."""
    ray, data = import_ray(["ray", "ray.data"], QUIET, local)
    with warnings.catch_warnings():  # of settings of its own that it says are deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _text(plain: Mapping[str, Any]) -> str:
    return orjson.dumps(plain).decode()
