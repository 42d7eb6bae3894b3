from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from polyhead.serving.scoring.driver import Driver
from polyhead.serving.scoring.errors import (
    BudgetSpent,
    InputUnreadable,
    JobLocked,
    JobRefused,
    OutputCorrupt,
    ScoringError,
    StoreFull,
    UnitFailed,
)
from polyhead.serving.scoring.job import JOB, PLAN, plan_bytes
from polyhead.serving.scoring.lease import Lease
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.publishing import MANIFEST, SUCCESS
from polyhead.serving.scoring.report import Report
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.sweeping import sweep
from polyhead.serving.scoring.tally import Tally
from polyhead.serving.scoring.units import Unit
from polyhead.serving.scoring.verifying import verify
from tests.unit.serving.scoring.jobs import InlineEngine, ids, job, published, units

News = Progress | Tally


def drive(
    folder: Path | str,
    engine: InlineEngine | None = None,
    *,
    resume: bool = False,
    watch: Callable[[News], None] = lambda _news: None,
    plan: Sequence[Unit] | None = None,
    **changes: Any,
) -> Report:
    plan = units() if plan is None else plan
    store = Store.of(folder)
    driver = Driver(store, job(store.address, plan, **changes), plan, resume=resume)
    return driver.run(engine or InlineEngine(), watch)


def failing(ordinal: int, error: BaseException) -> InlineEngine:
    """An engine that fails at a unit."""

    def fail(unit: Unit) -> None:
        if unit.ordinal == ordinal:
            raise error

    return InlineEngine(before=fail)


@pytest.fixture
def quiet(tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed job publishes."""
    drive(tmp_path / "quiet")
    return published(tmp_path / "quiet")


def test_a_job_publishes_its_rows_in_order_and_reports(tmp_path: Path) -> None:
    news: list[News] = []
    report = drive(tmp_path / "out", watch=news.append)
    assert ids(tmp_path / "out") == [row for row in range(60) if row not in {3, 21, 22}]
    assert sorted(published(tmp_path / "out")) == [
        "_SUCCESS",
        "_manifest.json",
        "_quarantine/part-00000000.parquet",
        "_quarantine/part-00000001.parquet",
        "part-00000000.parquet",
        "part-00000001.parquet",
        "part-00000002.parquet",
    ]
    assert (report.rows, report.scored, report.quarantined, report.filtered) == (60, 57, 3, 0)
    assert report.faults == {"decode/input_not_finite": 3}
    assert report.examples[0] == {
        "unit": 0,
        "file": "/data/in.parquet",
        "row": 3,
        "stage": "decode",
        "type": "input_not_finite",
        "message": "row is NaN",
        "attempts": 1,
    }
    assert (report.units, report.parts, report.resumed, report.fresh) == (3, 3, 0, 60)
    assert report.stages == {"forward": 1.5}
    assert report.rows_per_second > 0
    assert orjson.loads(orjson.dumps(report.plain()))["scored"] == 57
    assert [n.done for n in news if isinstance(n, Tally)] == [0, 20, 40, 60]
    assert news[-1] == Tally(60, 57, 3, 0, 0)


def test_the_manifest_tells_all_and_nothing_that_was_measured(tmp_path: Path) -> None:
    drive(tmp_path / "a")
    drive(tmp_path / "b", InlineEngine(order=lambda plan: plan[::-1]), settings=ScoreSettings(workers=7))
    manifest = orjson.loads((tmp_path / "a" / MANIFEST).read_bytes())
    assert manifest["totals"] == {"read": 60, "scored": 57, "quarantined": 3, "filtered": 0}
    assert manifest["faults"] == {"decode/input_not_finite": 3}
    assert manifest["columns"] == {"id": "int64", "double": "struct<value: double>"}
    assert manifest["parts"][1]["path"] == "part-00000001.parquet"
    assert [part["unit"] for part in manifest["parts"]] == [0, 1, 2]
    # Neither the order in which units came back nor the number of workers leaves a trace.
    assert published(tmp_path / "a") == published(tmp_path / "b")


def test_a_failure_keeps_what_was_committed(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    engine = failing(1, InputUnreadable("in.parquet: is gone"))
    with pytest.raises(InputUnreadable):
        drive(tmp_path / "out", engine)
    assert engine.closed
    assert published(tmp_path / "out") == {}
    rest = InlineEngine()
    news: list[News] = []
    report = drive(tmp_path / "out", rest, resume=True, watch=news.append)
    assert rest.done == [1, 2]
    assert (report.resumed, report.fresh, report.rows, report.scored) == (1, 40, 60, 57)
    assert news[0] == Tally(60, 19, 1, 0, resumed=20)
    assert published(tmp_path / "out") == quiet


def test_a_finished_job_is_not_done_again(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    engine = InlineEngine()
    report = drive(tmp_path / "quiet", engine, resume=True)
    assert engine.done == []
    assert (report.fresh, report.resumed, report.scored, report.rows_per_second) == (0, 3, 57, 0.0)
    assert published(tmp_path / "quiet") == quiet


def test_a_budget_is_held_against_a_finished_job_too(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    with pytest.raises(BudgetSpent, match="3 rows were quarantined, --max-bad-rows is 0: they are in _quarantine"):
        drive(tmp_path / "quiet", resume=True, settings=ScoreSettings(max_bad_rows=0))
    assert published(tmp_path / "quiet") == quiet


def test_where_no_room_is_left_gc_can_make_some(tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable):
        drive(tmp_path / "out", failing(1, InputUnreadable("gone")))
    leftover = tmp_path / "out/_polyhead/attempts/00000002/dead.parquet"
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.write_bytes(b"x" * 1000)
    with largest_file(0):
        assert sweep(tmp_path / "out").attempts == 1
    assert not leftover.exists()


def test_resume_begins_a_job_where_there_is_none(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    drive(tmp_path / "out", resume=True)
    assert published(tmp_path / "out") == quiet


def test_a_job_without_resume_is_refused(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    with pytest.raises(JobRefused, match=r"job.json: a job was begun here: go on with --resume, or score elsewhere"):
        drive(tmp_path / "quiet")
    assert published(tmp_path / "quiet") == quiet


@pytest.mark.parametrize("name", ["notes.txt", "part-00000000.parquet", "deep/er/x"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_with_files_of_others_is_refused(tmp_path: Path, name: str, resume: bool) -> None:
    Store.of(tmp_path).put(name, b"mine")
    with pytest.raises(JobRefused, match=rf"{name}: does not belong to a job: score into a new or empty directory"):
        drive(tmp_path, resume=resume)
    assert not (tmp_path / JOB).exists()


def test_a_file_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").write_bytes(b"mine")
    with pytest.raises(JobRefused, match=r"out.parquet: is a file: score into a directory"):
        drive(tmp_path / "out.parquet")


@pytest.mark.parametrize("left", [[], [PLAN], [PLAN, "_polyhead/tmp/0123", "_polyhead/driver.json.x"]])
def test_a_job_that_was_half_begun_wedges_nothing(tmp_path: Path, left: list[str], quiet: dict[str, bytes]) -> None:
    for name in left:
        Store.of(tmp_path / "out").put(name, plan_bytes(units(1))[:50])
    drive(tmp_path / "out")
    assert published(tmp_path / "out") == quiet


@pytest.mark.parametrize(
    ("plan", "changes", "said"),
    [
        (units(version="2"), {}, "/data/in.parquet was written again (version 2, was 1)"),
        (units(size=801), {}, "/data/in.parquet has 801 bytes, had 800"),
        (units(4), {}, "the input is cut into 4 other units of 80 rows, was 60 rows"),
        (
            units(),
            {"bundle_digest": "c" * 64},
            "the bundle is double/1.0 (cccccccccccc), was double/1.0 (abababababab)",
        ),
        (units(), {"settings": ScoreSettings(top_k=3)}, "setting top_k is 3, was 0"),
    ],
)
def test_another_job_is_refused_saying_what_changed(
    tmp_path: Path, quiet: dict[str, bytes], plan: Sequence[Unit], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobRefused) as refused:
        drive(tmp_path / "quiet", resume=True, plan=plan, **changes)
    assert f"is another job than this one ({said}): put that back as it was" in str(refused.value)
    assert published(tmp_path / "quiet") == quiet


def test_a_second_driver_is_refused_while_one_works(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    refused: list[ScoringError] = []

    def second(_unit: Unit) -> None:
        try:
            drive(tmp_path / "out", resume=True)
        except ScoringError as error:
            refused.append(error)

    drive(tmp_path / "out", InlineEngine(before=second))
    assert [type(error) for error in refused] == [JobLocked] * 3
    assert f"process {os.getpid()} on" in str(refused[0])
    assert published(tmp_path / "out") == quiet


def test_a_folder_that_is_replaced_under_a_driver_gets_nothing_of_it(tmp_path: Path) -> None:
    def replaced(unit: Unit) -> None:
        if unit.ordinal == 2:
            (tmp_path / "out").rename(tmp_path / "old")

    with pytest.raises(JobLocked, match="was removed while a driver held it"):
        drive(tmp_path / "out", InlineEngine(before=replaced))
    assert published(tmp_path / "out").get(SUCCESS) is None


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"max_bad_rows": 2}, "3 rows were quarantined, --max-bad-rows is 2: what was scored is kept"),
        ({"max_bad_ratio": 0.04}, "3 of 60 rows were quarantined, --max-bad-ratio is 0.04: what was scored is kept"),
    ],
)
def test_a_budget_stops_the_job_and_a_larger_one_goes_on(
    tmp_path: Path, quiet: dict[str, bytes], budget: dict[str, Any], said: str
) -> None:
    settings = ScoreSettings.model_validate(budget)
    engine = InlineEngine()
    with pytest.raises(BudgetSpent) as spent:
        drive(tmp_path / "out", engine, settings=settings)
    assert said in str(spent.value)
    assert engine.done == [0, 1]
    assert engine.closed
    # The receipt that broke it is kept: the same budget is spent before anything is done.
    engine = InlineEngine()
    with pytest.raises(BudgetSpent):
        drive(tmp_path / "out", engine, settings=settings, resume=True)
    assert engine.done == []
    engine = InlineEngine()
    report = drive(tmp_path / "out", engine, settings=ScoreSettings(max_bad_rows=3, max_bad_ratio=0.05), resume=True)
    assert engine.done == [2]
    assert report.quarantined == 3
    assert published(tmp_path / "out") == quiet


def test_a_receipt_that_comes_twice_counts_once(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    report = drive(tmp_path / "out", InlineEngine(order=lambda plan: [*plan, plan[0], plan[1]]))
    assert (report.scored, report.fresh) == (57, 60)
    assert published(tmp_path / "out") == quiet


def test_a_worker_that_lies_ends_the_job(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    engine = InlineEngine(forge=lambda receipt: replace(receipt, scored=receipt.scored + 1))
    with pytest.raises(UnitFailed, match="nothing of it was kept"):
        drive(tmp_path / "out", engine)
    drive(tmp_path / "out", resume=True)
    assert published(tmp_path / "out") == quiet


def test_an_engine_that_forgets_a_unit_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnitFailed, match="1 units have no receipt, unit 1 first"):
        drive(tmp_path / "out", InlineEngine(order=lambda plan: [plan[0], plan[2]]))
    assert published(tmp_path / "out") == {}


def test_an_input_without_rows_is_a_job_too(tmp_path: Path) -> None:
    report = drive(tmp_path / "out", plan=[])
    assert (report.rows, report.parts) == (0, 0)
    assert sorted(published(tmp_path / "out")) == [SUCCESS, MANIFEST]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_job_cleanly(tmp_path: Path, number: int, quiet: dict[str, bytes]) -> None:
    def send(unit: Unit) -> None:
        if unit.ordinal == 1:
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    engine = InlineEngine(before=send)
    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path / "out", engine)
    assert engine.closed
    assert signal.getsignal(signal.SIGTERM) == before
    drive(tmp_path / "out", resume=True)
    assert published(tmp_path / "out") == quiet


def test_a_notebook_may_score_in_a_thread(tmp_path: Path, quiet: dict[str, bytes]) -> None:
    thread = threading.Thread(target=drive, args=(tmp_path / "out",))
    thread.start()
    thread.join()
    assert published(tmp_path / "out") == quiet


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As when a disk is full, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 700, 1200, 2000])
def test_a_full_disk_ends_the_job_in_one_line_and_it_resumes(
    tmp_path: Path, size: int, quiet: dict[str, bytes]
) -> None:
    with pytest.raises(StoreFull, match="no room for the output") as full, largest_file(size):
        drive(tmp_path / "out")
    assert "\n" not in str(full.value)
    assert SUCCESS not in published(tmp_path / "out")
    drive(tmp_path / "out", resume=True)
    assert published(tmp_path / "out") == quiet


def test_a_part_that_vanished_before_it_was_published_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable):
        drive(tmp_path / "out", failing(2, InputUnreadable("gone")))
    attempts = tmp_path / "out/_polyhead/attempts/00000001"
    next(path for path in attempts.iterdir() if "quarantine" not in path.name).unlink()
    with pytest.raises(OutputCorrupt, match=r"is gone, and part-00000001.parquet is not it: remove the unit's receipt"):
        drive(tmp_path / "out", resume=True)
    (tmp_path / "out/_polyhead/receipts/00000001.json").unlink()
    drive(tmp_path / "out", resume=True)
    assert verify(tmp_path / "out").scored == 57


@pytest.mark.parametrize("scheme", ["local://", "memory://"])
def test_by_fsspec_it_is_the_same(
    tmp_path: Path, scheme: str, quiet: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "SETTLE", 0.01)
    address = f"{scheme}{tmp_path}/out"
    with pytest.raises(InputUnreadable):
        drive(address, failing(1, InputUnreadable("gone")))
    drive(address, resume=True)
    store = Store.of(address)
    names = [name for name in store.names() if not name.startswith("_polyhead/")]
    assert {name: store.read(name) for name in names} == quiet
    assert verify(address).scored == 57
