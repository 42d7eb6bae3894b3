"""One unit to its files: everything in one place, the same bytes again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.errors import OutputCorrupt, UnitFailed
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Journal
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.runner import run_unit
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.store import Store
from tests.unit.serving.scoring.tables import Memory, column_of

FOOTER = {"job": "abc", "bundle": "def", "versions": {"polyhead": "0.1.0"}}


@pytest.fixture(scope="module")
def scorer(mlp) -> Scorer:
    return Scorer(mlp.engine(), ScoreSettings(device="cpu", batch_rows=16))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.of(tmp_path)


@pytest.fixture
def x(mlp) -> np.ndarray:
    return np.tile(mlp.samples["x"], (4, 1))[:100].copy()


def table_of(store: Store, path: str) -> pa.Table:
    return pq.read_table(Path(store.address, path))


def run(scorer: Scorer, source: Memory, store: Store, attempt: str = "one", **more: Any) -> Receipt:
    receipt = run_unit(scorer, source, store, source.unit, FOOTER, attempt, **more)
    assert receipt.adds_up
    assert Receipt.of(receipt.plain()) == receipt
    return receipt


def test_a_unit_becomes_a_part_and_a_quarantine(scorer, store, x):
    x[[4, 50]] = np.nan
    source = Memory({"x": column_of(x)}, chunk=30, unreadable=[77], hidden=[5, 6], first_row=1000)
    receipt = run(scorer, source, store)
    assert (receipt.ordinal, receipt.read, receipt.scored) == (3, 100, 95)
    assert (receipt.quarantined, receipt.filtered) == (3, 2)
    assert receipt.faults == {"decode/input_not_finite": 2, "read/unreadable": 1}
    assert set(receipt.seconds) == {"read", "decode", "collate", "forward", "answer"}
    assert receipt.output.path == "_polyhead/attempts/00000003/one.parquet"
    for written in (receipt.output, receipt.quarantine):
        data = Path(store.address, written.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (written.size, written.sha256)
    part = table_of(store, receipt.output.path)
    assert part.column("id").to_pylist() == [f"row {row}" for row in range(100) if row not in (4, 5, 6, 50, 77)]
    assert part.schema.equals(scorer.schema(pa.schema([("id", pa.string())])))
    rows = table_of(store, receipt.quarantine.path).to_pylist()
    assert [row["row"] for row in rows] == [1004, 1050, 1077]
    assert rows[0] == {
        "unit": 3,
        "file": "/data/table.parquet",
        "row": 1004,
        "stage": "decode",
        "type": "input_not_finite",
        "message": "input 'x': 6 of 6 values are NaN or infinite",
        "attempts": 1,
    }


def test_the_footer_says_where_the_rows_come_from(scorer, store, x):
    receipt = run(scorer, Memory({"x": column_of(x)}, first_row=200), store)
    said = pq.read_metadata(Path(store.address, receipt.output.path)).metadata
    assert {key: value for key, value in said.items() if key.startswith(b"polyhead.")} == {
        b"polyhead.job": b"abc",
        b"polyhead.bundle": b"def",
        b"polyhead.versions": b'{"polyhead":"0.1.0"}',
        b"polyhead.unit": b"3",
        b"polyhead.source": b"/data/table.parquet",
        b"polyhead.rows": b"200:300",
    }


def test_two_attempts_are_the_same_bytes(scorer, store, x):
    x[7] = np.nan
    source = Memory({"x": column_of(x)}, chunk=32)
    one, two = (run(scorer, source, store, name) for name in ("one", "two"))
    slow = run(scorer, source, store, "slow", journal=Journal(killers={-1: Fault(-1, "read", "crashed", "")}))
    assert one.output.sha256 == two.output.sha256 == slow.output.sha256
    assert one.quarantine.sha256 == two.quarantine.sha256 == slow.quarantine.sha256


def test_a_unit_without_a_sound_row_still_has_a_part(scorer, store):
    receipt = run(scorer, Memory({"x": pa.array([None] * 5, pa.list_(pa.float32()))}), store)
    assert (receipt.scored, receipt.quarantined) == (0, 5)
    part = table_of(store, receipt.output.path)
    assert part.num_rows == 0
    assert part.schema.equals(scorer.schema(pa.schema([("id", pa.string())])))


def test_an_input_with_fewer_rows_than_planned_is_no_success(scorer, store, x):
    source = Memory({"x": column_of(x)})
    source.rows = 60
    with pytest.raises(UnitFailed, match="has 100 rows by the plan, and 60 were read"):
        run_unit(scorer, source, store, source.unit, FOOTER, "one")


def test_a_source_that_fails_leaves_no_part(scorer, store, x):
    class Broken(Memory):
        def read(self, *args: Any, **more: Any) -> Iterator[Any]:
            yield from list(super().read(*args, **more))[:2]
            raise OSError("gone")

    source = Broken({"x": column_of(x)}, chunk=10)
    with pytest.raises(OSError, match="gone"):
        run_unit(scorer, source, store, source.unit, FOOTER, "one")
    assert not [name for name in store.names("_polyhead/attempts") if name.endswith("one.parquet")]


@pytest.mark.parametrize("still", [[], [50], [4, 50, 77]], ids=["all mended", "one is not", "none is"])
@pytest.mark.parametrize("chunk", [7, 100])
def test_rows_tried_again_come_into_their_places(scorer, store, x, still, chunk):
    wrong = x.copy()
    wrong[[4, 50, 77]] = np.nan
    before = run(scorer, Memory({"x": column_of(wrong)}, chunk, hidden=[5, 6, 99]), store, "before")
    wrong = x.copy()
    wrong[still] = np.nan
    source = Memory({"x": column_of(wrong)}, chunk, hidden=[5, 6, 99])
    receipt = run(scorer, source, store, "after", only=[4, 50, 77], base=before.output)
    assert (receipt.read, receipt.scored, receipt.filtered) == (100, 97 - len(still), 3)
    part = table_of(store, receipt.output.path)
    ids = [row for row in range(100) if row not in (5, 6, 99, *still)]
    assert part.column("id").to_pylist() == [f"row {row}" for row in ids]
    earlier = table_of(store, before.output.path)
    kept = pa.array([row not in (4, 50, 77) for row in ids])
    assert part.filter(kept).equals(earlier)
    whole = table_of(store, run(scorer, Memory({"x": column_of(x)}, chunk), store, "whole").output.path)
    assert part.column("color").to_pylist()[:4] == whole.column("color").to_pylist()[:4]
    mended = [row for row in (4, 50, 77) if row not in still]
    for row in mended:
        found, told = (t.column("level").to_pylist()[place] for t, place in ((part, ids.index(row)), (whole, row)))
        assert found["value"] == pytest.approx(told["value"], rel=1e-5)


def test_rows_before_none_and_after_all_others(scorer, store, x):
    """The part that is there may have no row at all."""
    wrong = np.full_like(x, np.nan)
    before = run(scorer, Memory({"x": column_of(wrong)}), store, "before")
    receipt = run(scorer, Memory({"x": column_of(x)}), store, "after", only=range(100), base=before.output)
    whole = run(scorer, Memory({"x": column_of(x)}), store, "whole")
    assert receipt.output.sha256 == whole.output.sha256


def test_another_part_than_that_of_the_unit_is_refused(scorer, store, x):
    before = run(scorer, Memory({"x": column_of(x)}), store, "before")
    source = Memory({"x": column_of(x)})
    with pytest.raises(OutputCorrupt, match="has 100 rows, and unit 3 has 98 besides"):
        run_unit(scorer, source, store, source.unit, FOOTER, "after", only=[1, 2], base=before.output)
