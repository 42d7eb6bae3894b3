"""Scoring as a program calls it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring import score
from polyhead.serving.scoring.engines.local import LocalEngine
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.scoring import engine_of, settings_of
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.tally import Tally


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.parquet"
    numbers = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    numbers[7, 2] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 6)
    pq.write_table(pa.table({"id": range(300), "x": column}), path, row_group_size=100)
    return path


def test_a_table_is_scored_and_whoever_watches_is_told(mlp, table, tmp_path):
    news: list[Progress | Tally] = []
    report = score(
        mlp.bundle.folder, table, tmp_path / "out", heads=["level"], unit_rows=100, workers=1, watch=news.append
    )
    assert (report.rows, report.scored, report.quarantined, report.units) == (300, 299, 1, 3)
    assert report.faults == {"decode/input_not_finite": 1}
    found = ds.dataset(tmp_path / "out").to_table()
    assert found.column_names == ["id", "level"]
    assert found.column("id").to_pylist() == [n for n in range(300) if n != 7]
    tallies = [piece for piece in news if isinstance(piece, Tally)]
    assert [tally.done for tally in tallies] == [0, 100, 200, 300]
    assert tallies[-1] == Tally(300, scored=299, quarantined=1)
    assert {piece.worker for piece in news if isinstance(piece, Progress)} == {0}
    again = score(mlp.bundle.folder, table, tmp_path / "out", heads=["level"], unit_rows=100, resume=True)
    assert (again.fresh, again.resumed, again.scored) == (0, 3, 299)


def test_settings_may_be_an_object_and_be_changed():
    base = ScoreSettings(heads=("a",), top_k=3)
    assert settings_of(base, {}) == base
    assert settings_of(base, {"top_k": 1}) == ScoreSettings(heads=("a",), top_k=1)
    assert settings_of({"raw": True}, {"heads": ["b"]}) == ScoreSettings(heads=("b",), raw=True)
    assert settings_of(None, {}) == ScoreSettings()


@pytest.mark.parametrize("changes", [{"haeds": ["a"]}, {"top_k": -1}, {"format": "excel"}, {"max_bad_ratio": 2}])
def test_a_setting_that_is_unknown_or_impossible_is_named(changes):
    with pytest.raises(JobRefused, match=next(iter(changes))) as refused:
        settings_of(None, changes)
    assert "\n" not in str(refused.value)


def test_engines_go_by_name():
    assert isinstance(engine_of("local", ScoreSettings()), LocalEngine)
    with pytest.raises(JobRefused, match="engine 'spark' is none of local, ray"):
        engine_of("spark", ScoreSettings())
    with pytest.raises(JobRefused, match="ask for the engine 'ray'"):
        engine_of("local", ScoreSettings(), "auto")


def test_a_worker_process_imports_neither_driver_nor_torch():
    check = (
        "import sys, polyhead.serving.scoring.worker; "
        "print([n for n in ('torch', 'ray', 'polyhead.serving.scoring.driver') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_package_has_no_other_names():
    import polyhead.serving.scoring as package

    assert package.score is score
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = package.scores
