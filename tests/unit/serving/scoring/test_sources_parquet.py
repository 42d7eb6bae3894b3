"""Parquet: all rows in order, whatever the row groups; only what is needed is read; what is corrupt is lost alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyhead.serving.scoring.errors import InputChanged, InputUnreadable, JobRefused
from tests.unit.serving.scoring.inputs import NUMBERS, TEXTS, Opened, everything, numbers_of, spec_of


def table_of(rows: int) -> pa.Table:
    values = pa.array(np.arange(rows * 3, dtype=np.float32))
    return pa.table({"id": range(rows), "x": pa.FixedSizeListArray.from_arrays(values, 3), "unused": ["u" * 50] * rows})


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    groups=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    unit=st.integers(1, 60),
    chunk=st.integers(1, 50),
    size=st.integers(50, 2000),
)
def test_the_rows_of_all_units_are_the_table(
    tmp_path: Path, groups: list[int], unit: int, chunk: int, size: int
) -> None:
    table = table_of(sum(groups))
    path = tmp_path / "t.parquet"
    first = 0
    with pq.ParquetWriter(path, table.schema) as writer:
        for rows in groups:
            writer.write_table(table[first : first + rows], row_group_size=max(rows, 1))
            first += rows
    opened = Opened(path, NUMBERS, unit_rows=unit)
    assert [u.ordinal for u in opened.units] == list(range(len(opened.units)))
    assert all(1 <= u.rows <= 1.5 * unit for u in opened.units)
    chunks = opened.chunks(chunk, size)
    assert everything(chunks, "id") == list(range(len(table)))
    assert everything(chunks, "x") == table.column("x").to_pylist()
    last_first = [
        chunk for u in reversed(opened.units) for chunk in opened.source().read(u, chunk_rows=7, chunk_bytes=99)
    ]
    assert sorted(everything(last_first, "id")) == list(range(len(table)))


def test_chunks_are_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table_of(5000), path, row_group_size=3000)
    opened = Opened(path, NUMBERS, unit_rows=700)
    alone = [list(opened.source().read(u, chunk_rows=300, chunk_bytes=2500)) for u in opened.units]
    source = opened.source()
    for unit, chunks in zip(opened.units, alone, strict=True):
        for again in range(2):
            found = list(source.read(unit, chunk_rows=300, chunk_bytes=2500))
            assert [(c.first, c.total) for c in found] == [(c.first, c.total) for c in chunks], again
            assert everything(found, "id") == everything(chunks, "id")
    abandoned = source.read(opened.units[3], chunk_rows=300, chunk_bytes=2500)
    next(iter(abandoned))
    assert everything(list(source.read(opened.units[3], chunk_rows=300, chunk_bytes=2500)), "id") == everything(
        alone[3], "id"
    )


def test_several_files_follow_by_name_and_marked_names_are_passed_over(tmp_path: Path) -> None:
    for name, first in (
        ("b.parquet", 10),
        ("a/z.parquet", 0),
        ("c.parquet", 20),
        ("_done.parquet", 90),
        (".t.parquet", 95),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table_of(100)[first : first + 10], path)
    everyone = list(range(30))
    assert everything(Opened(tmp_path, NUMBERS).chunks(), "id") == everyone
    assert everything(Opened(f"{tmp_path}/**/*.parquet", NUMBERS).chunks(), "id") == everyone
    assert everything(Opened(f"{tmp_path}/[bc].parquet", NUMBERS).chunks(), "id") == everyone[10:]
    assert everything(Opened([tmp_path / "c.parquet", tmp_path / "a"], NUMBERS).chunks(), "id") == [
        *everyone[:10],
        *everyone[20:],
    ]
    assert everything(Opened(tmp_path / "_done.parquet", NUMBERS).chunks(), "id") == list(range(90, 100))
    assert everything(Opened(f"file://{tmp_path}/*.parquet", NUMBERS).chunks(), "id") == everyone[10:]


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = 2000
    heavy = pa.array([np.random.default_rng(row).bytes(2000) for row in range(rows)], pa.binary())
    pq.write_table(
        pa.table({"heavy": heavy, "text": [f"t{row}" for row in range(rows)]}),
        path,
        compression="none",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = b"\xff" * (
        column.total_compressed_size
    )
    path.write_bytes(data)
    opened = Opened(path, TEXTS, columns=())
    assert everything(opened.chunks(), "text") == [f"t{row}" for row in range(rows)]
    assert opened.reading.passed.names == []


def corrupt(path: Path, group: int, page: bytes = b"\xff" * 40) -> None:
    """Spoil the last bytes of a row group's column `id`."""
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(start + column.total_compressed_size // 2)
        file.write(page)


def test_what_is_corrupt_is_lost_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table_of(9000), path, row_group_size=3000, data_page_size=2000, use_dictionary=False)
    corrupt(path, 1)
    opened = Opened(path, NUMBERS, unit_rows=1000)
    opened_all = Opened(path, NUMBERS, unit_rows=100_000)
    rows = numbers_of(opened)
    assert rows == numbers_of(opened_all)
    lost = sorted(set(range(9000)) - set(rows))
    assert lost == list(range(lost[0], 6000))
    assert 3000 < lost[0] < 5000
    faults = opened_all.faults()
    assert sorted(faults) == lost
    assert {(fault.stage, fault.type) for fault in faults.values()} == {("read", "unreadable")}
    assert faults[lost[0]].message.startswith(f"row group 1: {path}")


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table_of(10), path)
    opened = Opened(path, NUMBERS)
    before = path.read_bytes()
    path.write_bytes(before + b"\0")
    with pytest.raises(InputChanged, match=r"changed since the job was planned \(size"):
        opened.chunks()
    path.write_bytes(before)
    with pytest.raises(InputChanged, match="version"):
        opened.chunks()
    path.unlink()
    with pytest.raises(InputChanged, match="is gone"):
        opened.chunks()


def test_several_columns_make_one_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1, 2, None], "b": [0.5, 1.5, 2.5], "c": pa.array([7, 8, 9], pa.int8())}), path)
    [chunk] = Opened(path, NUMBERS, mapping={"x": "a,b,c"}).chunks()
    assert chunk.inputs["x"].to_pylist() == [[1.0, 0.5, 7.0], [2.0, 1.5, 8.0], [None, 2.5, 9.0]]
    assert chunk.passed.num_columns == 0


def test_strings_that_are_not_utf8_do_not_pass(tmp_path: Path) -> None:
    def strings(values: list[bytes]) -> pa.Array:
        return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())

    note = strings([b"a", b"\xff", b"c", b"d\xfe"])
    table = pa.table({"text": strings([b"p", b"q", b"\xfd", b"s"]), "note": note, "tags": [["x"], ["y"], ["z"], ["w"]]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("t.parquet", "t.arrow"):
        opened = Opened(tmp_path / name, TEXTS)
        [chunk] = opened.chunks()
        assert chunk.rows.tolist() == [0, 2]
        assert chunk.inputs["text"].cast(pa.binary()).to_pylist() == [b"p", b"\xfd"]  # the model's own is not judged
        assert {fault.row: (fault.stage, fault.type) for fault in chunk.faults} == {
            1: ("read", "not_utf8"),
            3: ("read", "not_utf8"),
        }


def test_images_of_data_sets_are_their_bytes(tmp_path: Path) -> None:
    spec = spec_of(image={"kind": "image", "size": [8, 8], "channels": "gray", "mean": [0.5], "std": [0.25]})
    rows: list[Any] = [{"bytes": b"png", "path": "a.png"}, None, {"bytes": None, "path": "b.png"}]
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    assert everything(Opened(tmp_path / "t.parquet", spec).chunks(), "image") == [b"png", None, None]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_odd_layouts_are_filtered_and_passed(tmp_path: Path, kind: pa.DataType) -> None:
    note = pa.array(["a", None, "b", "a"])
    note = note.cast(kind) if kind == pa.string_view() else note.dictionary_encode()
    with pa.ipc.new_file(tmp_path / "t.arrow", pa.schema([("text", pa.string()), ("note", kind)])) as writer:
        writer.write_batch(pa.record_batch({"text": ["p", "q", "r", "s"], "note": note}))
    [chunk] = Opened(tmp_path / "t.arrow", TEXTS, filter="note == 'a'").chunks()
    assert chunk.passed.column("note").to_pylist() == ["a", "a"]
    assert everything([chunk], "text") == ["p", "s"]


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "text": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(JobRefused, match=r"b\.parquet: column 'id' is string, in .*a\.parquet it is int64"):
        Opened(tmp_path, TEXTS)
    assert everything(Opened(tmp_path, TEXTS, columns=()).chunks(), "text") == ["a", "a"]
    pq.write_table(pa.table({"id": [2]}), tmp_path / "b.parquet")
    with pytest.raises(JobRefused, match=r"b\.parquet: lacks column 'text'"):
        Opened(tmp_path, TEXTS)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for content in (b"", b"PAR1 nothing PAR1", b"hello"):
        path.write_bytes(content)
        with pytest.raises(InputUnreadable, match=r"t\.parquet: .*is it whole") as caught:
            Opened(path, TEXTS)
        assert "\n" not in str(caught.value)


def test_a_table_without_rows_has_no_units(tmp_path: Path) -> None:
    pq.write_table(table_of(0), tmp_path / "t.parquet")
    assert Opened(tmp_path / "t.parquet", NUMBERS).units == []


def test_a_name_with_a_dot_is_a_name_and_no_path(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a.b": ["x", "y"], "a": [{"b": "p"}, {"b": "q"}]}), path)
    opened = Opened(path, TEXTS, mapping={"text": "a.b"}, filter="a.b == 'q'")
    assert everything(opened.chunks(), "text") == ["y"]


def test_row_groups_without_number_are_read_together(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"t{row}" for row in range(3000)]}), path, row_group_size=10)
    opened = Opened(path, TEXTS)
    assert [chunk.total for chunk in opened.chunks()] == [1000, 1000, 1000]


def test_a_column_may_be_nullable_in_one_file_alone(tmp_path: Path) -> None:
    for name, nullable, values in (("1", False, [1, 2]), ("2", True, [3, None])):
        schema = pa.schema([pa.field("text", pa.string()), pa.field("id", pa.int64(), nullable)])
        pq.write_table(pa.table({"text": ["a", "b"], "id": values}, schema=schema), tmp_path / f"{name}.parquet")
    assert everything(Opened(tmp_path, TEXTS).chunks(), "id") == [1, 2, 3, None]


def test_a_text_that_a_dictionary_says_often_counts_each_time(tmp_path: Path) -> None:
    texts = [f"{number}" * 4000 for number in range(10)]
    pq.write_table(pa.table({"text": [texts[row % 10] for row in range(4096)]}), tmp_path / "t.parquet")
    assert pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0).total_byte_size < 100_000
    chunks = Opened(tmp_path / "t.parquet", TEXTS).chunks(4096, 1 << 20)
    assert max(chunk.inputs["text"].nbytes for chunk in chunks) < 2 << 20
    assert sum(len(chunk.rows) for chunk in chunks) == 4096


def test_a_pattern_may_name_folders(tmp_path: Path) -> None:
    for name in ("d1/a.parquet", "d1/b/c.parquet", "d.parquet", "e/d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": [name], "id": [1]}), tmp_path / name)
    assert everything(Opened(f"{tmp_path}/d*/", TEXTS).chunks(), "text") == ["d1/a.parquet", "d1/b/c.parquet"]
