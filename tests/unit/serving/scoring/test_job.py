from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.job import JOB, PLAN, Job, load_plan, plan_bytes
from polyhead.serving.scoring.settings import FREE, ScoreSettings
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import InputFile, Unit
from tests.unit.serving.scoring.jobs import job, units

NARROW = pa.field("id", pa.int32())
PLAIN = job("/out", units())
OTHER_VALUES: dict[str, Any] = {
    "workers": 3,
    "decode_threads": 2,
    "hang_seconds": 1.0,
    "max_bad_rows": 0,
    "max_bad_ratio": 0.5,
}


def test_a_job_is_read_as_it_was_written() -> None:
    again = Job.of(orjson.loads(PLAIN.content()), "/out")
    assert again == PLAIN
    assert again.schema.equals(PLAIN.schema, check_metadata=True)


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_worker_finds_a_job_by_its_address(scheme: str, tmp_path: Path) -> None:
    store = Store.of(f"{scheme}{tmp_path}/out")
    wanted = job(store.address, units())
    store.put(JOB, wanted.content())
    assert wanted.address == f"{scheme}{tmp_path}/out/_polyhead/job.json"
    assert Job.load(wanted.address) == wanted


def test_a_job_that_was_moved_is_the_same() -> None:
    moved = job("/elsewhere", units(), bundle="/other/bundles/double")
    assert moved.identity == PLAIN.identity
    assert PLAIN.changes(moved, units(), units()) == []


def test_how_the_input_was_named_decides_nothing() -> None:
    named = replace(PLAIN, reading=replace(PLAIN.reading, source="in.parquet"))
    assert named.identity == PLAIN.identity


@pytest.mark.parametrize("name", sorted(FREE))
def test_free_settings_decide_nothing(name: str) -> None:
    other = replace(PLAIN, settings=ScoreSettings.model_validate({name: OTHER_VALUES[name]}))
    assert other.settings != PLAIN.settings
    assert other.identity == PLAIN.identity
    assert PLAIN.changes(other) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bundle_digest": "c" * 64}, "the bundle is double/1.0 (cccccccccccc), was double/1.0 (abababababab)"),
        ({"settings": ScoreSettings(batch_rows=7)}, "setting batch_rows is 7, was 1024"),
        ({"settings": ScoreSettings(heads=("double",))}, 'setting heads is ["double"], was null'),
        ({"chosen": {**PLAIN.chosen, "runtime": "torchscript"}}, 'runtime is "torchscript", was "onnxruntime"'),
        ({"schema": PLAIN.schema.remove(0)}, "the output has no column 'id' any more"),
        ({"schema": PLAIN.schema.set(0, NARROW)}, "the output's column 'id' has another type (int32, was int64)"),
        ({"reading": replace(PLAIN.reading, inputs={"x": ("y",)})}, 'reading inputs is {"x":["y"]}, was {"x":["x"]}'),
    ],
)
def test_what_decides_is_told_when_it_changes(changes: dict[str, Any], said: str) -> None:
    other = replace(PLAIN, **changes)
    assert other.identity != PLAIN.identity
    assert said in PLAIN.changes(other, units(), units())


def file(name: str, size: int = 10, version: str = "1") -> InputFile:
    return InputFile(name, size, version)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([file("a")], ["b is gone"]),
        ([file("a"), file("b"), file("c")], ["c is new"]),
        ([file("a", size=11), file("b")], ["a has 11 bytes, had 10"]),
        ([file("a"), file("b", version="2")], ["b was written again (version 2, was 1)"]),
        ([file(name) for name in "abcdefghij"], [f"{n} is new" for n in "cdefg"] + ["and 3 more input files changed"]),
    ],
)
def test_input_files_that_changed_are_named(now: list[InputFile], said: list[str]) -> None:
    def plan(files: list[InputFile]) -> list[Unit]:
        return [Unit(ordinal, (entry,), 0, 10) for ordinal, entry in enumerate(files)]

    before = plan([file("a"), file("b")])
    old, new = job("/out", before), job("/out", plan(now))
    assert old.identity != new.identity
    assert old.changes(new, before, plan(now)) == said


def test_a_plan_that_is_cut_otherwise_is_another_job() -> None:
    other = [replace(unit, rows=5) for unit in units()]
    assert PLAIN.changes(job("/out", other), units(), other) == [
        "the input is cut into 3 other units of 15 rows, was 60 rows"
    ]


def test_a_plan_that_was_touched_is_refused(tmp_path: Path) -> None:
    store = Store.of(tmp_path)
    store.put(PLAN, plan_bytes(units()))
    assert load_plan(store, PLAIN) == units()
    store.put(PLAN, plan_bytes(units(2)))
    with pytest.raises(
        JobRefused, match=r"plan\.jsonl: was changed \(sha256 .*, the job says .*\): score into another"
    ):
        load_plan(store, PLAIN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"[]", "it is no object"),
        (PLAIN.content()[:-20], "cannot be read"),
        (PLAIN.content().replace(b'"layout": 1', b'"layout": 2'), "its layout is 2, this Polyhead knows 1"),
        (PLAIN.content().replace(b'"digest": "ab', b'"digest": "ff'), "it does not have the identity that it names"),
        (PLAIN.content().replace(b'"batch_rows": 1024', b'"batch_rows": 0'), "batch_rows"),
        (PLAIN.content().replace(b'"chosen"', b'"selected"'), "KeyError('chosen')"),
    ],
)
def test_a_damaged_job_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    store = Store.of(tmp_path)
    store.put(JOB, content)
    with pytest.raises(JobRefused) as refused:
        Job.read(store)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
