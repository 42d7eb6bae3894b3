"""Filters: which rows are scored, by SQL's rule for nulls; and what is no filter."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.filtering import Filter
from tests.unit.serving.scoring.inputs import TEXTS, Opened, everything

TABLE = pa.record_batch(
    {
        "n": pa.array([1, 2, 3, None]),
        "x": pa.array([0.5, float("nan"), -1.0, 2.0]),
        "kind": pa.array(["a", "b", None, "c"]).dictionary_encode(),
        "ok": pa.array([True, False, None, True]),
        "day": pa.array([datetime.date(2024, 1, day) for day in (1, 2, 3, 4)]),
        "odd name": pa.array(["p", "q", "r", "s"]),
        "meta": pa.array([{"lang": "nl"}, {"lang": "en"}, None, {"lang": None}]),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n >= 2", [1, 2]),
        ("n != 2", [0, 2]),
        ("not n == 2", [0, 2]),
        ("1 < n <= 3", [1, 2]),
        ("n == 1 or n is null", [0, 3]),
        ("n is not null and x > 0", [0]),
        ("x > -2", [0, 2, 3]),
        ("kind in ['a', 'c']", [0, 3]),
        ("kind not in ('a', 'c')", [1]),
        ("not (kind in ['a'])", [1, 3]),
        ("kind == 'b' or ok", [0, 1, 3]),
        ("ok == false", [1]),
        ("'2024-01-03' <= day", [2, 3]),
        ("column('odd name') == 'q'", [1]),
        ("meta.lang == 'nl'", [0]),
        ("x < n", [0, 2]),
        ("n == 2.0", [1]),
    ],
)
def test_a_filter_keeps_the_rows_for_which_it_is_true(text: str, rows: list[int]) -> None:
    condition = Filter.parse(text)
    condition.require(TABLE.schema)
    assert condition.mask(TABLE).nonzero()[0].tolist() == rows


def test_a_filter_names_its_columns_once() -> None:
    assert Filter.parse("b > 1 and a.deep < b and column('a b') is null").columns == ("b", "a", "a b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n =", "invalid syntax"),
        ("n = 2", "character"),
        ("n >", "character"),
        ("1 < 2", "no column"),
        ("true", "no condition"),
        ("len(n) > 2", "no condition|no column"),
        ("n + 1 > 2", "no column|wanted"),
        ("n in []", "a list of values"),
        ("n in kind", "a list of values"),
        ("n is 3", "is null"),
        ("n == null", "is null"),
        ("__import__('os').system('x') == 1", "no column|wanted"),
        ("column(n) == 1", "column"),
        ("n == b'x'", "wanted a number"),
        ("(" * 500 + "n" + ")" * 500 + " > 1", "filter"),
        ("n > 1\0", "filter"),
        ("", "character|invalid syntax"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, message: str) -> None:
    with pytest.raises(JobRefused, match=message) as caught:
        Filter.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m > 1", r"no column 'm' in the input \(columns: n, x, kind"),
        ("n == 'NL'", "int64 is compared with 'NL'"),
        ("kind > 3", "string is compared with 3"),
        ("ok == 1", "bool is compared with 1"),
        ("n == true", "int64 is compared with True"),
        ("n and ok", "and_kleene|neither true nor false"),
        ("n", "neither true nor false"),
        ("day > 'someday'", "someday"),
        ("meta.land == 'nl'", "land"),
    ],
)
def test_a_filter_that_the_table_cannot_answer_is_refused(text: str, message: str) -> None:
    with pytest.raises(JobRefused, match=message) as caught:
        Filter.parse(text).require(TABLE.schema)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_left_out_is_no_fault_and_one_that_cannot_be_told_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    good = "x,1,1.5\n" * 140_000
    path.write_bytes(b"text,n,rate\n" + good.encode() + b"a,2,bad\nb,3,bad\nc,three,2.5\nd,3,3.5\ne,,4.5\nf,3,\n")
    opened = Opened(path, TEXTS, unit_rows=10**9, filter="n == 3", columns=("rate",))
    chunks = opened.chunks(chunk_rows=100_000)
    assert everything(chunks, "text") == [b"d", b"f"]
    assert everything(chunks, "rate") == [3.5, None]
    faults = {row - 140_000: fault.message for row, fault in opened.faults().items()}
    assert sorted(faults) == [1, 2]
    assert "'rate'" in faults[1]
    assert "'n'" in faults[2]
    assert sum(chunk.filtered for chunk in chunks) == 140_002


def test_large_whole_numbers_are_compared_with_fractions(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "n": [1, 2, 2**60 + 1]}), path)
    assert everything(Opened(path, TEXTS, filter="n > 1.5").chunks(), "text") == ["b", "c"]
