"""The local engine with real bundles and real worker processes, which die, hang and are killed."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from polyhead.serving.cores import available_cores
from polyhead.serving.errors import DeviceUnavailable
from polyhead.serving.scoring.engines.local import LocalEngine, devices
from polyhead.serving.scoring.errors import InputChanged, JobRefused
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.settings import ScoreSettings
from tests.unit.serving.conftest import Example
from tests.unit.serving.scoring.staging import Staged, stage
from tests.unit.serving.wordpiece import VOCABULARY

DEADLY = (sys.executable, str(Path(__file__).with_name("deadly.py")))
ROWS, UNIT = 1200, 200


@pytest.fixture
def indices(tmp_path: Path) -> Path:
    """Numbers of a table's rows, 0 to 4."""
    return write(tmp_path / "in.parquet", np.arange(ROWS) % 5)


def write(path: Path, numbers: np.ndarray) -> Path:
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.astype(np.int64)), 1)
    pq.write_table(pa.table({"id": np.arange(len(numbers)), "index": column}), path, row_group_size=UNIT)
    return path


def run(staged: Staged, engine: LocalEngine | None = None, notes: list[str] | None = None) -> dict[int, Receipt]:
    told: list[str] = [] if notes is None else notes
    found: dict[int, Receipt] = {}
    engine = engine or LocalEngine(staged.settings)
    for receipt in engine.run(staged.job, staged.units, lambda progress: told.append(progress.note)):
        assert receipt.adds_up
        assert receipt.ordinal not in found
        found[receipt.ordinal] = receipt
    told[:] = [note for note in told if note]
    assert sorted(found) == [unit.ordinal for unit in staged.units]
    assert not workers()
    return found


def workers() -> list[psutil.Process]:
    """That run, of ours."""
    return [child for child in psutil.Process().children() if "worker" in " ".join(child.cmdline())]


def content(receipts: Mapping[int, Receipt]) -> list[str]:
    return [receipts[ordinal].output.sha256 for ordinal in sorted(receipts)]


def rows(staged: Staged, receipts: Mapping[int, Receipt]) -> dict[int, dict[str, object]]:
    tables = [staged.table(receipts[ordinal]) for ordinal in sorted(receipts)]
    return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}


def test_any_number_of_workers_write_the_same_bytes(mlp: Example, tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(900, 6)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 6)
    pq.write_table(pa.table({"x": column}), tmp_path / "in.parquet", row_group_size=150)
    found = [
        content(run(stage(mlp.bundle, tmp_path / "in.parquet", tmp_path / f"out{n}", unit_rows=150, workers=n)))
        for n in (1, 3)
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) == 6


@pytest.mark.parametrize(("how", "kind"), [("SIGSEGV", "crashed"), ("hang", "hung"), ("lost", "crashed")])
def test_the_row_that_kills_is_quarantined_and_no_other(
    lookup: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, kind: str
) -> None:
    numbers = np.arange(ROWS) % 5
    killers = (237, 911) if how == "SIGSEGV" else (237,)
    numbers[list(killers)] = 7
    source = write(tmp_path / "in.parquet", numbers)
    table = lookup.network.table.weight.tolist()
    expected = {row: {"id": row, "entry": {"vector": table[number]}} for row, number in enumerate(numbers)}
    monkeypatch.setenv("DEADLY", f"7:{how}")
    staged = stage(lookup.bundle, source, tmp_path / "out", unit_rows=UNIT, workers=2, hang_seconds=1.0, batch_rows=64)
    notes: list[str] = []
    receipts = run(staged, LocalEngine(staged.settings, DEADLY), notes)
    found = rows(staged, receipts)
    assert found == {ident: row for ident, row in expected.items() if ident not in killers}
    bad = [fault for receipt in receipts.values() for fault in staged.quarantine(receipt)]
    assert sorted((fault["row"], fault["stage"], fault["type"]) for fault in bad) == [
        (row, "forward", kind) for row in killers
    ]
    assert all(("hang-seconds" in fault["message"]) == (how == "hang") for fault in bad)
    assert any("forward 0 will be done row by row" in note for note in notes)
    assert any("row 37 is quarantined" in note for note in notes)


def test_texts_answered_with_care_are_what_they_were(
    reader: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed twice on one unit has its steps done row by row; what is written stays the same, bit for bit."""
    texts = [" ".join(["turn", "on", "the", "kitchen", "light"][: 1 + place % 5]) for place in range(600)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet", row_group_size=300)
    options = {"unit_rows": 300, "workers": 1, "batch_rows": 64}
    quiet = content(run(stage(reader.bundle, tmp_path / "in.parquet", tmp_path / "quiet", **options)))
    staged = stage(reader.bundle, tmp_path / "in.parquet", tmp_path / "out", **options)
    monkeypatch.setenv("DEADLY", f"{VOCABULARY.index('[CLS]')}:SIGKILL")
    monkeypatch.setenv("DEADLY_MOST", str(tmp_path / "most"))
    (tmp_path / "most").write_text("2")
    notes: list[str] = []
    found = content(run(staged, LocalEngine(staged.settings, DEADLY), notes))
    assert found == quiet
    assert [note.partition(": ")[2] for note in notes] == [
        "a worker died (SIGKILL): it is scored again",
        "a worker died (SIGKILL): decode 0, forward 0 will be done row by row",
    ]


def test_workers_killed_at_random_lose_nothing_and_double_nothing(
    lookup: Example, indices: Path, tmp_path: Path
) -> None:
    quiet = content(run(stage(lookup.bundle, indices, tmp_path / "quiet", unit_rows=UNIT, workers=1)))
    staged = stage(lookup.bundle, indices, tmp_path / "out", unit_rows=UNIT, workers=2)
    notes: list[str] = []
    over = threading.Event()
    killer = threading.Thread(target=kill_workers, args=(over, random.Random(5), 6))
    killer.start()
    try:
        found = content(run(staged, notes=notes))
    finally:
        over.set()
        killer.join()
    assert found == quiet


def kill_workers(over: threading.Event, moments: random.Random, most: int) -> None:
    """Kill workers of ours, wherever they are."""
    while most and not over.wait(moments.uniform(0.05, 0.4)):
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if "polyhead.serving.scoring.worker" in child.cmdline() and most:
                    child.kill()
                    most -= 1
                    break


def test_what_a_worker_refuses_ends_the_job_and_every_worker(lookup: Example, indices: Path, tmp_path: Path) -> None:
    staged = stage(lookup.bundle, indices, tmp_path / "out", unit_rows=UNIT, workers=2)
    write(indices, np.arange(ROWS) % 3 + 1)
    with pytest.raises(InputChanged, match=r"in\.parquet"):
        run(staged)
    assert not workers()


def test_closing_ends_the_workers_at_once(lookup: Example, indices: Path, tmp_path: Path) -> None:
    staged = stage(lookup.bundle, indices, tmp_path / "out", unit_rows=UNIT, workers=2)
    receipts = LocalEngine(staged.settings).run(staged.job, staged.units, lambda _progress: None)
    assert isinstance(receipts, Generator)
    next(receipts)
    assert workers()
    receipts.close()
    assert not workers()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker ")]


def test_another_bundle_in_the_place_of_the_planned_one_is_refused(
    lookup: Example, mlp: Example, indices: Path, tmp_path: Path
) -> None:
    staged = stage(lookup.bundle, indices, tmp_path / "out", unit_rows=UNIT, workers=1)
    moved = replace(staged.job, bundle=str(mlp.bundle.folder))
    with pytest.raises(JobRefused, match=r"is not the one of the job \(\w{12}, was \w{12}\)"):
        list(LocalEngine(staged.settings).run(moved, staged.units, lambda _progress: None))
    gone = replace(staged.job, bundle=str(tmp_path / "gone"))
    with pytest.raises(JobRefused, match="must see it at this path"):
        list(LocalEngine(staged.settings).run(gone, staged.units, lambda _progress: None))


def test_progress_is_told_in_the_callers_thread(lookup: Example, indices: Path, tmp_path: Path) -> None:
    staged = stage(lookup.bundle, indices, tmp_path / "out", unit_rows=UNIT, workers=2)
    told: list[tuple[Progress, str]] = []
    engine = LocalEngine(staged.settings)
    for _ in engine.run(staged.job, staged.units, lambda p: told.append((p, threading.current_thread().name))):
        pass
    assert {thread for _, thread in told} == {threading.current_thread().name}
    assert {progress.worker for progress, _ in told} == {0, 1}
    assert any(progress.state == "starting" for progress, _ in told)


def test_devices() -> None:
    cores = available_cores()
    assert devices(ScoreSettings(), "cpu") == ["cpu"] * cores
    assert devices(ScoreSettings(threads=cores + 1), "cpu") == ["cpu"]
    assert devices(ScoreSettings(workers=3), "cpu") == ["cpu"] * 3
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable, match="is not there"):
            devices(ScoreSettings(), "cuda")
