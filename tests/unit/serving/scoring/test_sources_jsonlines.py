"""JSON Lines: every line a row, wherever units and chunks are cut; each bad line alone is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.serving.scoring.errors import JobRefused
from tests.unit.serving.scoring.inputs import NUMBERS, TEXTS, Opened, everything

TEXT = st.text(max_size=6) | st.none() | st.integers(-(10**6), 10**6)
VALUES = st.fixed_dictionaries({"text": TEXT}, optional={"n": st.integers(-9, 9)})
ENDS = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(VALUES, max_size=12), end=ENDS, last=st.booleans(), cut=st.integers(1, 5))
def test_any_lines_are_read_wherever_they_are_cut(
    tmp_path: Path, rows: list[dict[str, Any]], end: str, last: bool, cut: int
) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"text": "first", "n": 1}, *rows]
    written = end.join(json.dumps(row, ensure_ascii=False) for row in rows) + (end if last else "")
    path.write_bytes(written.encode())
    opened = Opened(path, TEXTS, unit_rows=cut)
    chunks = opened.chunks(chunk_rows=2, chunk_bytes=16)
    assert everything(chunks, "text") == [row["text"] for row in rows]
    assert everything(chunks, "n") == [row.get("n") for row in rows]
    assert {unit.rows for unit in opened.units[:-1]} <= {cut}


def test_bad_lines_are_told_apart(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good", "id": 1, "note": "a"}',
        b'{"text": "cut off"',
        b"[1, 2]",
        b'"text"',
        b'{"text": "\xff", "id": 2}',
        b"",
        b'{"id": 3}',
        b'{"text": null, "id": 4}',
        b'{"text": "wrong id", "id": "5"}',
        b'{"text": "half id", "id": 5.5}',
        b'{"text": "true id", "id": true}',
        b'{"text": "no id", "note": "b"}',
        b'{"text": 7, "id": 6, "new": 1}',
        b'{"text": "lone \\ud800", "id": 7}',
    ]
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join(lines[:1] * 100_000 + lines))
    first = 100_000
    opened = Opened(path, TEXTS, unit_rows=10**9)
    faults = {row - first: (fault.stage, fault.type) for row, fault in opened.faults().items()}
    assert faults == {
        1: ("read", "malformed_row"),
        2: ("read", "malformed_row"),
        3: ("read", "malformed_row"),
        4: ("read", "not_utf8"),
        5: ("decode", "missing"),
        7: ("read", "wrong_type"),
        8: ("read", "wrong_type"),
        9: ("read", "wrong_type"),
        12: ("read", "malformed_row"),
    }
    chunks = opened.chunks()
    assert everything(chunks, "text")[first:] == ["good", None, "no id", 7]
    assert everything(chunks, "id")[first:] == [1, 4, None, 6]
    assert everything(chunks, "note")[first:] == ["a", None, "b", None]
    assert '"5" is no int64' in opened.faults()[first + 7].message


def test_the_models_values_are_as_json_has_them(tmp_path: Path) -> None:
    path = tmp_path / "t.ndjson"
    path.write_text('{"x": [1, 2.5, null]}\n{"x": [1, NaN, Infinity]}\n{"x": {"b64": "AA=="}}\n{"x": [[1], 2]}\n')
    values = everything(Opened(path, NUMBERS).chunks(), "x")
    assert values[0] == [1, 2.5, None]
    assert str(values[1]) == "[1, nan, inf]"
    assert values[2:] == [{"b64": "AA=="}, [[1], 2]]


def test_several_keys_make_one_row(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "b": 2, "c": 3}\n{"a": 1, "b": 2}\n{"a": "x", "b": null, "c": 3}\n')
    [chunk] = Opened(path, NUMBERS, mapping={"x": "c,b,a"}).chunks()
    assert list(chunk.inputs["x"]) == [[3, 2, 1], [3, None, "x"]]
    assert [(fault.row, fault.stage, fault.type) for fault in chunk.faults] == [(1, "decode", "missing")]


def test_nested_values_pass_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [
        {"text": "a", "meta": {"lang": "nl", "tags": []}, "empty": None},
        {"text": "b", "meta": {"lang": "en", "tags": ["x"]}, "empty": "now"},
        {"text": "c"},
    ]
    new = {"text": "d", "meta": {"lang": "de", "tags": [], "extra": 1}}
    body = "\n".join(json.dumps(row) for row in rows * 8_000)
    path.write_text(body + "\n" + json.dumps(new))
    opened = Opened(path, TEXTS, unit_rows=10**9)
    assert opened.reading.passed.field("meta").type == pa.struct(
        [("lang", pa.string()), ("tags", pa.list_(pa.string()))]
    )
    chunks = opened.chunks()
    assert everything(chunks, "meta")[:3] == [rows[0]["meta"], rows[1]["meta"], None]
    assert everything(chunks, "empty")[:3] == [None, "now", None]
    [fault] = [fault for chunk in chunks for fault in chunk.faults]
    assert (fault.row, fault.type) == (24_000, "wrong_type")


def test_a_column_of_several_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a", "odd": 1}\n{"text": "b", "odd": "one"}\n')
    with pytest.raises(JobRefused, match=r"'odd' are of several types.*--columns"):
        Opened(path, TEXTS)


def test_an_integer_of_any_size_is_what_was_written_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    long = "123456789012345678901234567890"
    rows = '{"text": "a", "id": 0.5, "whole": 1}\n{"text": "b", "id": LONG}\n{"text": "c", "whole": -LONG}\n'
    path.write_text((rows + '{"text": "d LONG", "id": 0.LONG}\n{"text": LONG}\n').replace("LONG", long))
    (tmp_path / "first.jsonl").write_text('{"text": "a", "id": 0.5, "whole": 1}\n' * 40_000 + path.read_text())
    opened = Opened(tmp_path / "first.jsonl", TEXTS)
    faults = opened.faults()
    assert {row - 40_000: fault.type for row, fault in faults.items()} == {1: "wrong_type", 2: "wrong_type"}
    assert f"{long} is no double" in faults[40_001].message
    # As HTTP has it: the model's own values are orjson's.
    assert everything(opened.chunks(), "text")[40_001:] == [f"d {long}", float(long)]
    with pytest.raises(JobRefused, match=r"several types"):
        Opened(path, TEXTS)


@pytest.mark.parametrize("before", ["\n" * (2 << 20), ""])
def test_columns_are_told_by_a_row_wherever_it_ends(tmp_path: Path, before: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(before + json.dumps({"text": "a" * (3 << 20), "id": 1}) + '\n{"text": "b", "id": 2}\n')
    assert everything(Opened(path, TEXTS).chunks(), "id") == [1, 2]


def test_a_file_without_rows_tells_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n")
    assert Opened(tmp_path, TEXTS).units == []
    (tmp_path / "b.jsonl").write_text('{"text": "a", "id": 1}\n')
    assert everything(Opened(tmp_path, TEXTS).chunks(), "id") == [1]


def test_a_column_without_values_at_first_takes_any(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    late = [None, 7, "seven", [1, None], {"é": True}]
    rows = [{"text": "a", "note": None}] * 50_000 + [{"text": "b", "note": value} for value in late]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    opened = Opened(path, TEXTS)
    assert not opened.faults()
    assert everything(opened.chunks(), "note")[50_000:] == [None, "7", "seven", "[1, null]", '{"é": true}']


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("")
    assert Opened(path, TEXTS, filter="n > 1").units == []
