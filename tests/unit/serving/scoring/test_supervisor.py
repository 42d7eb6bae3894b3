"""A supervisor and its worker: deaths of every kind, and what comes of the unit."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from polyhead.serving.errors import BundleError
from polyhead.serving.scoring.errors import InputChanged, ScoringError, UnitFailed
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.supervisor import Ended, Supervisor
from polyhead.serving.scoring.units import InputFile, Unit

COMMAND = (sys.executable, str(Path(__file__).with_name("scripted.py")))
UNIT = Unit(3, (InputFile("a.parquet", 1, "v"),), 100, 16)


class Staged:
    """A supervisor of a scripted worker."""

    def __init__(self, log: Path, hang_seconds: float, script: dict[str, Any]) -> None:
        self.log = log
        self.told: list[Progress] = []
        self.supervisor = Supervisor(7, {"log": str(log), **script}, hang_seconds, self.told.append, command=COMMAND)

    @property
    def attempts(self) -> list[list[str]]:
        """Of each attempt: process, name, steps with care, killers."""
        return [line.split(" ", 3) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def notes(self) -> list[str]:
        return [progress.note for progress in self.told if progress.note]


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., Staged]]:
    made: list[Staged] = []

    def make(hang_seconds: float = 30.0, **script: Any) -> Staged:
        made.append(Staged(tmp_path / "log", hang_seconds, script))
        return made[-1]

    yield make
    for one in made:
        one.supervisor.close()


def test_a_worker_scores_unit_after_unit(staged) -> None:
    stage = staged()
    receipts = [stage.supervisor.score(Unit(ordinal, UNIT.files, 0, 16)) for ordinal in range(3)]
    assert [receipt.ordinal for receipt in receipts] == [0, 1, 2]
    assert all(receipt.adds_up and receipt.scored == 16 for receipt in receipts)
    assert len({process for process, *_ in stage.attempts}) == 1
    assert len({name for _, name, *_ in stage.attempts}) == 3


@pytest.mark.parametrize(
    ("how", "kind"), [("SIGSEGV", "forward/crashed"), ("hang", "forward/hung"), ("exit", "forward/crashed"),
                      ("SIGKILL", "forward/crashed"), ("decode", "decode/crashed")]
)  # fmt: skip
def test_a_row_that_kills_is_quarantined_alone(staged, how: str, kind: str) -> None:
    stage = staged(hang_seconds=0.6, **{how: [6]})
    receipt = stage.supervisor.score(UNIT)
    assert receipt.adds_up
    assert (receipt.scored, receipt.faults) == (15, {kind: 1})
    assert receipt.output.path == ""  # no step was left to rows alone: all other answers are an undisturbed run's
    first, second, third, *_ = [care for _, _, care, _ in stage.attempts]
    assert (first, second) == ("0", "0")
    assert third != "0"
    # Where others may have sent the signal, the row must die of it twice.
    assert len(stage.attempts) == (5 if how == "SIGKILL" else 4)
    assert stage.attempts[-1][3] == "[6]"


def test_rows_that_kill_in_several_steps_are_all_found(staged) -> None:
    receipt = staged(SIGSEGV=[5, 6, 15]).supervisor.score(UNIT)
    assert (receipt.scored, receipt.faults) == (13, {"forward/crashed": 3})


def test_what_happens_once_leaves_no_trace(staged) -> None:
    stage = staged(once=[6])
    receipt = stage.supervisor.score(UNIT)
    assert (receipt.scored, receipt.quarantine) == (16, None)
    assert [care for _, _, care, _ in stage.attempts] == ["0", "0"]
    assert stage.notes == ["unit 3 (a.parquet, rows 100 to 115): a worker died (SIGKILL): it is scored again"]
    assert len({process for process, *_ in stage.attempts}) == 2


def test_rows_that_die_only_together_are_answered_alone(staged) -> None:
    receipt = staged(together=[2]).supervisor.score(UNIT)
    assert (receipt.scored, receipt.quarantine) == (16, None)
    assert receipt.output.path == "forward 2"


def test_what_dies_while_reading_fails_the_unit_by_name(staged) -> None:
    stage = staged(read=[1])
    with pytest.raises(UnitFailed, match=r"unit 3 \(a.parquet, rows 100 to 115\): 3 workers died .* SIGSEGV in read 1"):
        stage.supervisor.score(UNIT)
    assert len(stage.attempts) == 3


def test_a_refusal_at_the_start_is_raised_at_once(staged) -> None:
    with pytest.raises(BundleError, match=r"fused\.onnx was changed"):
        staged(refused="fused.onnx was changed").supervisor.start()


def test_a_worker_that_cannot_start_says_its_last_line(staged) -> None:
    with pytest.raises(
        ScoringError, match=r"died 3 times before it was ready, the last time of exit status 3.*no such"
    ):
        staged(start="exit").supervisor.start()


def test_errors_of_the_job_are_raised_as_they_are(staged) -> None:
    stage = staged(changed=[9])
    with pytest.raises(InputChanged, match="was written to since"):
        stage.supervisor.score(UNIT)
    assert len(stage.attempts) == 1


def test_a_connection_that_broke_is_tried_again(staged) -> None:
    stage = staged(network=[9])
    assert stage.supervisor.score(UNIT).scored == 16
    assert len(stage.attempts) == 2
    assert len({process for process, *_ in stage.attempts}) == 1
    assert "ConnectionResetError: the store hung up: it is tried again" in stage.notes[0]


def test_a_worker_that_died_between_units_is_not_blamed_on_the_next(staged) -> None:
    stage = staged()
    stage.supervisor.score(UNIT)
    process = psutil.Process(stage.supervisor.process.pid)
    process.kill()
    while process.status() != psutil.STATUS_ZOMBIE:  # waiting for it would take its status from the supervisor
        time.sleep(0.01)
    assert stage.supervisor.score(UNIT).scored == 16
    assert stage.notes == ["unit 3 (a.parquet, rows 100 to 115): a worker died (SIGKILL): it is scored again"]


def test_stop_ends_a_unit_in_the_middle(staged) -> None:
    stage = staged(hang=[6])
    raised: list[BaseException] = []

    def score() -> None:
        try:
            stage.supervisor.score(UNIT)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=score)
    thread.start()
    while not any(progress.stage for progress in stage.told):
        time.sleep(0.01)
    process = psutil.Process(stage.supervisor.process.pid)
    stage.supervisor.stop()
    thread.join(5)
    stage.supervisor.close()
    assert [type(error) for error in raised] == [Ended]
    assert not process.is_running()


@pytest.mark.parametrize("row", [[], [6]], ids=["idle", "hung"])
def test_a_worker_dies_with_its_driver(tmp_path: Path, row: list[int]) -> None:
    """The driver here is a process of its own, killed where it stands."""
    log = tmp_path / "log"
    driver = psutil.Popen([sys.executable, __file__, str(log), *map(str, row)])
    while not log.exists() or not log.read_text().endswith("\n"):
        time.sleep(0.01)
    worker = psutil.Process(int(log.read_text().split()[0]))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs([worker], 5)
    assert not alive


if __name__ == "__main__":
    log, *rows = sys.argv[1:]
    Staged(Path(log), 600, {"hang": list(map(int, rows))}).supervisor.score(UNIT)
    time.sleep(600)
