from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.driver import Driver
from polyhead.serving.scoring.errors import BudgetSpent, InputUnreadable, JobLocked, JobRefused, OutputCorrupt
from polyhead.serving.scoring.lock import locked
from polyhead.serving.scoring.publishing import MANIFEST, SUCCESS
from polyhead.serving.scoring.retrying import CHANGEABLE, retry
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.sweeping import sweep
from polyhead.serving.scoring.units import Unit
from polyhead.serving.scoring.verifying import verify
from tests.unit.serving.scoring.jobs import InlineEngine, ids, job, published, units


def scored(folder: Path, *, resume: bool = False) -> InlineEngine:
    engine = InlineEngine()
    Driver(Store.of(folder), job(str(folder), units()), units(), resume=resume).run(engine, lambda _news: None)
    return engine


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished job: row 3 of unit 0, rows 21 and 22 of unit 1 are in quarantine."""
    scored(tmp_path / "out")
    return tmp_path / "out"


def quarantine(out: Path) -> list[int]:
    folder = out / "_quarantine"
    return pq.read_table(folder).column("row").to_pylist() if any(folder.iterdir()) else []


def test_rows_that_succeed_get_their_places(out: Path) -> None:
    before = published(out)
    engine = InlineEngine(bad=frozenset({21}))
    report = retry(out, engine=engine)
    assert engine.done == [0, 1]  # unit 2 has no row in quarantine
    assert ids(out) == [row for row in range(60) if row != 21]
    assert quarantine(out) == [21]
    assert (report.scored, report.quarantined, report.fresh, report.generation) == (59, 1, 3, 1)
    assert report.faults == {"decode/input_not_finite": 1}
    after = published(out)
    assert "_quarantine/part-00000000.parquet" not in after
    assert after["part-00000002.parquet"] == before["part-00000002.parquet"]
    assert pq.read_metadata(out / "part-00000000.parquet").metadata[b"polyhead.generation"] == b"1"
    manifest = orjson.loads(after[MANIFEST])
    assert [part["generation"] for part in manifest["parts"]] == [1, 1, 0]
    assert verify(out).scored == 59
    assert not (out / "_polyhead/retry.json").exists()


def test_it_may_be_done_again_and_again(out: Path) -> None:
    retry(out, engine=InlineEngine())
    assert quarantine(out) == [3, 21, 22]
    retry(out, engine=InlineEngine(bad=frozenset({3})))
    assert quarantine(out) == [3]
    report = retry(out, engine=InlineEngine(bad=frozenset()))
    assert (report.generation, report.fresh) == (3, 1)
    assert ids(out) == list(range(60))
    assert quarantine(out) == []
    engine = InlineEngine()
    assert retry(out, engine=engine).fresh == 0
    assert engine.done == []
    verify(out)


def test_the_job_stays_the_same_job(out: Path) -> None:
    retry(out, {"max_row_bytes": 2**30}, engine=InlineEngine(bad=frozenset()))
    after = published(out)
    assert scored(out, resume=True).done == []  # it is finished, by its own settings
    assert published(out) == after
    verify(out)


def test_a_budget_is_counted_when_every_row_was_tried(out: Path) -> None:
    with pytest.raises(BudgetSpent, match=r"1 rows were quarantined, --max-bad-rows is 0: they are in _quarantine"):
        retry(out, {"max_bad_rows": 0}, engine=InlineEngine(bad=frozenset({22})))
    assert quarantine(out) == [22]
    assert retry(out, {"max_bad_rows": 0}, engine=InlineEngine(bad=frozenset())).quarantined == 0


@pytest.mark.parametrize("changes", [{"batch_rows": 3}, {"scores": True}, {"device": "cpu"}, {"nosuch": 1}])
def test_settings_that_decide_scored_rows_are_refused(out: Path, changes: dict[str, Any]) -> None:
    before = published(out)
    with pytest.raises(JobRefused) as refused:
        retry(out, changes, engine=InlineEngine(bad=frozenset()))
    assert f"setting {next(iter(changes))!r} decides rows that are scored already: only decode_threads" in str(
        refused.value
    )
    assert published(out) == before
    assert {"max_image_pixels", "max_row_bytes", "workers"} < CHANGEABLE


def test_a_setting_that_is_impossible_is_named(out: Path) -> None:
    with pytest.raises(JobRefused, match="workers"):
        retry(out, {"workers": -1}, engine=InlineEngine())


def failing(unit: Unit) -> None:
    if unit.ordinal == 1:
        raise InputUnreadable("gone")


def test_readers_see_the_old_output_until_every_unit_is_done(out: Path) -> None:
    before = published(out)
    with pytest.raises(InputUnreadable):
        retry(out, engine=InlineEngine(bad=frozenset(), before=failing))
    assert published(out) == before
    verify_old = pytest.raises(OutputCorrupt, match="does not say what the receipt of unit 0 says")
    with verify_old:
        verify(out)
    # What was committed is not swept, though the output is finished: it is not published yet.
    assert sweep(out).attempts == 0
    engine = InlineEngine(bad=frozenset())
    retry(out, engine=engine)
    assert engine.done == [1]
    assert ids(out) == list(range(60))
    verify(out)


def test_a_round_under_way_ends_with_the_settings_it_began_with(out: Path) -> None:
    with pytest.raises(InputUnreadable):
        retry(out, {"max_image_pixels": 60}, engine=InlineEngine(bad=frozenset(), before=failing))
    with pytest.raises(JobRefused, match=r"under way with other settings .*max_image_pixels is 70, was 60"):
        retry(out, {"max_image_pixels": 70}, engine=InlineEngine(bad=frozenset()))
    retry(out, {"max_image_pixels": 60, "workers": 1}, engine=InlineEngine(bad=frozenset()))
    assert ids(out) == list(range(60))


def test_rows_of_a_unit_that_was_scored_anew_leave_the_quarantine(out: Path) -> None:
    """As `verify` advises for a damaged unit."""
    (out / "_polyhead/receipts/00000000.json").unlink()
    (out / SUCCESS).unlink()
    plan = units()
    Driver(Store.of(out), job(str(out), plan), plan, resume=True).run(InlineEngine(bad=frozenset({21, 22})), print)
    assert ids(out) == [row for row in range(60) if row not in (21, 22)]
    assert quarantine(out) == [21, 22]
    verify(out)


def test_a_resume_in_between_publishes_what_is_there(out: Path) -> None:
    with pytest.raises(InputUnreadable):
        retry(out, engine=InlineEngine(bad=frozenset(), before=failing))
    assert scored(out, resume=True).done == []
    assert quarantine(out) == [21, 22]
    verify(out)
    engine = InlineEngine(bad=frozenset())
    report = retry(out, engine=engine)
    assert engine.done == [1]
    assert report.generation == 1
    assert ids(out) == list(range(60))
    verify(out)


def test_refused_without_a_finished_job(tmp_path: Path, out: Path) -> None:
    with pytest.raises(JobRefused, match="this is no directory of polyhead score"):
        retry(tmp_path / "nosuch", engine=InlineEngine())
    (out / SUCCESS).unlink()
    with pytest.raises(JobRefused, match="its job is not finished: go on with polyhead score --resume first"):
        retry(out, engine=InlineEngine())
    with locked(Store.of(out)), pytest.raises(JobLocked):
        retry(out, engine=InlineEngine())
