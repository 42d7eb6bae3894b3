"""A worker in this very process: what it opens, what it refuses, what it hands back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.beats import BYTES, Beats
from polyhead.serving.scoring.engines.hello import environment, hello
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.journal import Step
from polyhead.serving.scoring.task import Task
from polyhead.serving.scoring.worker import Worker
from tests.unit.serving.conftest import Example
from tests.unit.serving.scoring.staging import Staged, stage


@pytest.fixture
def staged(lookup: Example, tmp_path: Path) -> Staged:
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(90) % 8), 1)
    pq.write_table(pa.table({"index": column}), tmp_path / "in.parquet", row_group_size=30)
    return stage(lookup.bundle, tmp_path / "in.parquet", tmp_path / "out", unit_rows=30, batch_rows=16)


@pytest.fixture
def beats(tmp_path: Path) -> Beats:
    path = tmp_path / "page"
    path.write_bytes(bytes(BYTES))
    descriptor = os.open(path, os.O_RDWR)
    try:
        return Beats(descriptor)
    finally:
        os.close(descriptor)


def test_it_scores_a_unit_and_tells_of_every_step(staged: Staged, beats: Beats) -> None:
    worker = Worker(hello(staged.job, staged.settings, "cpu"))
    care = {Step("forward", 1): "first"}
    receipt = worker.do(Task.of(Task(staged.units[1], "a", care).plain()), beats)
    assert (receipt.ordinal, receipt.scored, receipt.output.path.endswith("/00000001/a.parquet")) == (1, 30, True)
    assert staged.table(receipt)["entry"].to_pylist()[2] == staged.table(receipt)["entry"].to_pylist()[10]
    assert len(beats.places()) == 1  # with care all is done in one thread, so that the last word is about what kills
    assert beats.count > 14 + beats.rows  # each row of the step with care is told of
    assert beats.rows >= 30
    beats.clear()
    assert (beats.count, beats.places()) == (0, [])


def test_the_job_decides_and_only_what_is_free_comes_from_the_run(staged: Staged) -> None:
    other = staged.settings.model_copy(update={"batch_rows": 1, "top_k": 3, "decode_threads": 5})
    said = hello(staged.job, other, "cpu")["settings"]
    assert (said["batch_rows"], said["top_k"], said["decode_threads"]) == (16, 0, 5)
    assert (said["runtime"], said["precision"], said["device"]) == ("onnxruntime", "fp32", "cpu")
    assert environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_destination_without_the_job_is_refused(staged: Staged, tmp_path: Path) -> None:
    elsewhere = replace(staged.job, destination=str(tmp_path / "elsewhere"))
    with pytest.raises(JobRefused, match=r"does not hold this job as .* every machine that scores"):
        Worker(hello(elsewhere, staged.settings, "cpu"))
