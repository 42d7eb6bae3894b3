from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.proposal import propose
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.store import Store
from tests.unit.serving.conftest import Example

SETTINGS = ScoreSettings(unit_rows=10, device="cpu")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Forty rows in four row groups."""
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(240, dtype=np.float32)), 6)
    pq.write_table(pa.table({"id": pa.array(range(40)), "x": numbers}), tmp_path / "in.parquet", row_group_size=10)
    return tmp_path / "in.parquet"


def test_a_job_is_all_that_decides(mlp: Example, table: Path, tmp_path: Path) -> None:
    job, units = propose(mlp.bundle, table, Store.of(tmp_path / "out"), SETTINGS)
    assert (job.units, job.rows, [unit.rows for unit in units]) == (4, 40, [10] * 4)
    assert (job.bundle_digest, job.bundle_title) == (mlp.bundle.digest, "mlp/1.0")
    assert (job.chosen["device"], job.chosen["precision"]) == ("cpu", "fp32")
    assert job.schema.names == ["id", *mlp.bundle.spec.heads]
    assert {"polyhead", "pyarrow"} < set(job.versions)
    assert propose(mlp.bundle, str(table), Store.of(tmp_path / "other"), SETTINGS)[0].identity == job.identity


def test_a_plan_is_taken_over_only_where_the_input_is_the_same(mlp: Example, table: Path, tmp_path: Path) -> None:
    store = Store.of(tmp_path / "out")
    job, units = propose(mlp.bundle, table, store, SETTINGS)
    marked = units[:2]  # no plan that anybody would make: it can only have been taken over
    assert propose(mlp.bundle, table, store, SETTINGS, (job, marked))[1] == marked
    larger = SETTINGS.model_copy(update={"unit_rows": 20})
    assert len(propose(mlp.bundle, table, store, larger, (job, marked))[1]) == 2
    filtered = SETTINGS.model_copy(update={"filter": "id > 3"})
    assert len(propose(mlp.bundle, table, store, filtered, (job, marked))[1]) == 4
    pq.write_table(pq.read_table(table).slice(0, 30), table, row_group_size=10)
    again, plan = propose(mlp.bundle, table, store, SETTINGS, (job, marked))
    assert len(plan) == 3
    assert again.identity != job.identity
    assert any("in.parquet has" in change for change in job.changes(again, units, plan))
