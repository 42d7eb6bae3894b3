"""Arrow files and streams: all rows in order, whatever the record batches."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.serving.scoring.errors import InputUnreadable, JobRefused
from tests.unit.serving.scoring.inputs import TEXTS, Opened, everything

OPENERS = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}


def write(path: Path, kind: str, batches: list[int]) -> int:
    first = 0
    with OPENERS[kind](path, pa.schema([("id", pa.int64()), ("text", pa.string()), ("unused", pa.string())])) as writer:
        for rows in batches:
            ids = range(first, first + rows)
            columns = {"id": ids, "text": [f"t{row}" for row in ids], "unused": pa.array([None] * rows, pa.string())}
            writer.write_batch(pa.record_batch({k: pa.array(v, writer_type(k)) for k, v in columns.items()}))
            first += rows
    return first


def writer_type(name: str) -> pa.DataType:
    return pa.int64() if name == "id" else pa.string()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    kind=st.sampled_from(sorted(OPENERS)),
    batches=st.lists(st.integers(0, 40), max_size=6),
    unit=st.integers(1, 60),
    chunk=st.integers(1, 50),
)
def test_the_rows_of_all_units_are_the_table(
    tmp_path: Path, kind: str, batches: list[int], unit: int, chunk: int
) -> None:
    path = tmp_path / "t.arrow"
    total = write(path, kind, batches)
    opened = Opened(path, TEXTS, unit_rows=unit)
    chunks = opened.chunks(chunk)
    assert everything(chunks, "id") == list(range(total))
    assert everything(chunks, "text") == [f"t{row}" for row in range(total)]
    source = opened.source()
    backwards = [chunk for unit in reversed(opened.units) for chunk in source.read(unit, chunk_rows=9, chunk_bytes=999)]
    assert sorted(everything(backwards, "id")) == list(range(total))


def test_feather_is_read(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"] * 5000, "id": range(10_000)})
    feather.write_feather(table, tmp_path / "t.feather", compression="zstd", chunksize=3000)
    opened = Opened(tmp_path / "t.feather", TEXTS, unit_rows=4000)
    assert everything(opened.chunks(), "id") == list(range(10_000))


@pytest.mark.parametrize("kind", sorted(OPENERS))
def test_a_batch_that_cannot_be_read_is_lost(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.arrow"
    write(path, kind, [100, 100, 100])
    opened = Opened(path, TEXTS)
    [file] = opened.units[0].files
    data = bytearray(path.read_bytes())
    place = data.index(b"t100t101")
    spoiled = data.rindex(b"\xff\xff\xff\xff", 0, place)  # where the second batch begins
    data[spoiled : spoiled + 12] = b"\xff\xff\xff\xff\xf0\xff\xff\x7f\xff\xff\xff\xff"
    path.write_bytes(data)
    os.utime(path, ns=(int(file.version), int(file.version)))
    faults = opened.faults()
    assert {(fault.stage, fault.type) for fault in faults.values()} == {("read", "unreadable")}
    if kind == "file":
        assert set(faults) >= set(range(100, 200))


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0nothing", b"FEA1", b"hello, world, this is no table"])
def test_what_is_no_arrow_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.arrow"
    path.write_bytes(content)
    with pytest.raises(InputUnreadable, match=r"t\.arrow: .*is it"):
        Opened(path, TEXTS)


def test_a_column_that_parquet_cannot_hold_is_refused(tmp_path: Path) -> None:
    kind = pa.month_day_nano_interval()
    with pa.ipc.new_file(tmp_path / "t.arrow", pa.schema([("text", pa.string()), ("age", kind)])) as writer:
        writer.write_batch(pa.record_batch({"text": ["a"], "age": pa.nulls(1, kind)}))
    with pytest.raises(JobRefused, match=r"'age' is month_day_nano_interval.*--columns"):
        Opened(tmp_path / "t.arrow", TEXTS)
    assert everything(Opened(tmp_path / "t.arrow", TEXTS, columns=()).chunks(), "text") == ["a"]


def write_columns(path: Path, **columns: pa.Array) -> None:
    table = pa.table({"text": pa.array(["a"] * len(next(iter(columns.values())))), **columns})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def spoiled(kind: str) -> pa.Array:
    """Two hundred rows, of which one holds a string that is not UTF-8."""
    words = pa.array([b"good"] * 5 + [b"bad\xff"] + [b"good"] * 194).view(pa.string())
    offsets = pa.array(range(201), pa.int32())
    if kind == "list":
        return pa.ListArray.from_arrays(offsets, words)
    if kind == "map":
        return pa.MapArray.from_arrays(offsets, pa.array(["key"] * 200), words)
    return pa.StructArray.from_arrays([words], ["word"])


@pytest.mark.parametrize("kind", ["list", "struct", "map"])
def test_one_bad_string_deep_in_a_column_is_one_bad_row(tmp_path: Path, kind: str) -> None:
    write_columns(tmp_path / "t.arrow", id=pa.array(range(200)), tags=spoiled(kind))
    opened = Opened(tmp_path / "t.arrow", TEXTS)
    assert {row: fault.type for row, fault in opened.faults().items()} == {5: "not_utf8"}
    assert everything(opened.chunks(), "id") == [row for row in range(200) if row != 5]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([["a"], ["b", "c"], None], pa.list_(pa.string_view())), pa.list_(pa.large_string())),
        (pa.array([{"w": "a"}, None, {"w": None}], pa.struct({"w": pa.string_view()})), None),
        (pa.array([1, None, 3], pa.timestamp("s", "Europe/Amsterdam")), pa.timestamp("ms", "Europe/Amsterdam")),
        (pa.array([1, None, 3], pa.time32("s")), pa.time32("ms")),
        (pa.array([86_400_000, None, 0], pa.date64()), pa.date32()),
        (pa.array([[1], None, []], pa.list_(pa.timestamp("s"))), pa.list_(pa.timestamp("ms"))),
    ],
)
def test_a_column_is_declared_as_parquet_gives_it_back(tmp_path: Path, column: pa.Array, kind: object) -> None:
    write_columns(tmp_path / "t.arrow", c=column)
    opened = Opened(tmp_path / "t.arrow", TEXTS, filter="text == 'a'")
    declared = opened.reading.passed.field("c").type
    assert kind is None or declared == kind
    (chunk,) = opened.chunks()
    assert chunk.passed.column("c").take(pa.array([2, 0])).to_pylist() == [column[2].as_py(), column[0].as_py()]
    pq.write_table(pa.Table.from_batches([chunk.passed]), tmp_path / "back.parquet")
    assert pq.read_schema(tmp_path / "back.parquet").field("c").type == declared
