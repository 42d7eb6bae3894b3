"""CSV: the rows that Python's csv reads, wherever units and chunks are cut; each bad row alone is lost."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from polyhead.serving.scoring.errors import InputUnreadable
from polyhead.serving.scoring.sources.lines import Dialect, blocks
from tests.unit.serving.scoring.inputs import NUMBERS, TEXTS, Opened, everything, spec_of

LIMIT = 1 << 20
CELLS = st.text(st.sampled_from('ab,"\n\r \t;é'), max_size=6)
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=12)
# What no writer writes, and csv reads all the same: quotes within fields and after them.
WILD = st.lists(st.sampled_from(['"', '""', ",", "a", "b c", "\n", "\r\n", "\r", 'x"', '"q"', '"n\nn"']), max_size=40)


def rows_of(data: bytes, block: int = 1 << 20, limit: int = LIMIT) -> list[bytes]:
    stream = io.BytesIO(data)
    found = []
    for lines in blocks(stream.read, Dialect(ord(","), limit), block):
        found += [lines.data[a:b] for a, b in zip(lines.starts.tolist(), lines.ends.tolist(), strict=True)]
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n", "\r"]), last=st.booleans(), cut=st.integers(1, 5))
def test_any_table_is_read_as_csv_reads_it_wherever_it_is_cut(
    tmp_path: Path, rows: list[tuple[str, str]], end: str, last: bool, cut: int
) -> None:
    text = io.StringIO()
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL  # it would not quote the half of its own line's end
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(["text", "note"])
    writer.writerows(rows)
    written = text.getvalue()
    path = tmp_path / "t.csv"
    path.write_bytes((written if last else written.removesuffix(end)).encode())
    opened = Opened(path, TEXTS, unit_rows=cut)
    chunks = opened.chunks(chunk_rows=2, chunk_bytes=16)
    assert not [fault for chunk in chunks for fault in chunk.faults]
    assert [cell.decode() for cell in everything(chunks, "text")] == [row[0] for row in rows]
    assert {unit.rows for unit in opened.units[:-1]} <= {cut}
    if rows and opened.reading.passed.field("note").type == pa.string():
        assert everything(chunks, "note") == [row[1] for row in rows]


@settings(max_examples=200, deadline=None)
@given(parts=WILD, block=st.integers(1, 9))
def test_rows_end_where_csv_ends_them(parts: list[str], block: int) -> None:
    text = "".join(parts)
    try:
        wanted = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        ended = list(csv.reader(io.StringIO(text + "\n\x01", newline="")))[-1] == ["\x01"]
    except csv.Error:
        assume(False)
    found = rows_of(text.encode(), block)
    assert found == rows_of(text.encode())
    if ended:  # else the last quote that opens is never closed, and csv reads all that follows as one cell
        rows = [list(csv.reader(io.StringIO(row.decode(), newline=""))) for row in found]
        assert [row for row, *more in rows if not more] == wanted


def test_a_quote_that_is_never_closed_costs_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,n\none,1\n"two,2\nthree,3\nfour,4\n')
    opened = Opened(path, TEXTS)
    assert everything(opened.chunks(), "text") == [b"one", b"three", b"four"]
    [fault] = opened.faults().values()
    assert (fault.row, fault.stage, fault.type) == (1, "read", "malformed_row")
    assert "never closed" in fault.message
    assert everything(Opened(path, TEXTS, unit_rows=1).chunks(), "n") == [1, 3, 4]


def test_a_row_larger_than_any_may_be_costs_its_own_line() -> None:
    long = b"a" * 500
    rows = b"one,1\n" + long + b",2\n" + b'"' + b"x\n" * 200 + b'",3\nlast,4\n"\n'
    for block in (7, 64, 100_000):
        stream = io.BytesIO(rows)
        seen, stops = [], []
        for lines in blocks(stream.read, Dialect(ord(","), 100), block):
            for row in range(lines.rows):
                seen.append("broken" if row in lines.broken else lines.data[lines.starts[row] : lines.ends[row]])
            stops += lines.stops.tolist()
        assert seen == [b"one,1\n", "broken", "broken", *[b"x\n"] * 199, b'",3\nlast,4\n"\n']
        assert stops == sorted(set(stops))
        assert stops[-1] == len(rows)


def test_bad_rows_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"text,id,note\ngood,1,a\nfew,2\nmany,3,b,c\n\n\xff\xfe,4,d\nbad note,5,\xff\nbad id,007,e\nempty id,,f\n"
        b'"a\nb",9,g\n'
    )
    opened = Opened(path, TEXTS)
    faults = opened.faults()
    assert {row: (fault.stage, fault.type) for row, fault in faults.items()} == {
        1: ("read", "malformed_row"),
        2: ("read", "malformed_row"),
        4: ("read", "not_utf8"),
    }
    chunks = opened.chunks()
    assert everything(chunks, "text") == [b"good", b"\xff\xfe", b"bad id", b"empty id", b"a\nb"]
    assert everything(chunks, "id") == ["1", "4", "007", "", "9"]
    assert "2 fields, the first row names 3" in faults[1].message


def test_a_row_that_is_wrong_twice_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"text,n\ngood,1\n\xff,2,3\n\xfe,4\n\xc3\xa9,5\n")
    opened = Opened(path, TEXTS)
    assert everything(opened.chunks(), "text") == [b"good", b"\xfe", b"\xc3\xa9"]
    assert {row: fault.type for row, fault in opened.faults().items()} == {1: "malformed_row"}


def test_a_type_is_frozen_by_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    head = "text,id,when,flag,rate,code,big\n"
    good = "x,1,2024-05-01,true,0.5,007,12345678901234567890\n"
    late = ["x,1.5,2024-05-01,true,1,8,1\n", "x,2,2024-02-30,true,1,8,1\n", "x,3,2024-05-01,1,1,8,1\n", "x,NA,,,,,\n"]
    path.write_text(head + good * 30_000 + "".join(late))
    opened = Opened(path, TEXTS, unit_rows=10**9)
    types = {field.name: str(field.type) for field in opened.reading.passed}
    assert types == {
        "id": "int64",
        "when": "date32[day]",
        "flag": "bool",
        "rate": "double",
        "code": "string",
        "big": "string",
    }
    faults = opened.faults()
    assert {row: fault.type for row, fault in faults.items()} == dict.fromkeys([30_000, 30_001, 30_002], "wrong_type")
    assert "'1.5' is no int64" in faults[30_000].message
    last = opened.chunks()[-1].passed.to_pylist()[-1]
    assert last == {"id": None, "when": None, "flag": None, "rate": None, "code": "", "big": ""}


def test_numbers_of_several_columns_make_one_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("f1,f2,f3,id\n1,2.5,3,a\n 4 ,,6,b\n7,eight,9,c\n-1e3,nan,0,d\n")
    opened = Opened(path, NUMBERS, mapping={"x": "f*"})
    [chunk] = opened.chunks()
    assert chunk.inputs["x"].type == pa.list_(pa.float64(), 3)
    first, last = chunk.inputs["x"].to_pylist()
    assert first == [1.0, 2.5, 3.0]
    assert last[0] == -1000.0
    assert last[1] != last[1]
    faults = {fault.row: (fault.stage, fault.type) for fault in chunk.faults}
    assert faults == {1: ("decode", "missing"), 2: ("decode", "invalid_instance")}
    assert "wanted a number, got 'eight'" in chunk.faults[1].message


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    spec = spec_of(x={"kind": "tensor", "dtype": "int64", "shape": [1]})
    path = tmp_path / "t.csv"
    path.write_text("x\n9007199254740993\n2.5\n7\n")
    [chunk] = Opened(path, spec).chunks()
    assert chunk.inputs["x"].to_pylist() == [9007199254740993, 7]
    assert [fault.row for fault in chunk.faults] == [1]


def test_a_cell_may_be_a_list(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('x,id\n"[1, 2, 3]",a\n"[1, 2",b\n,c\n"[4.5,5,6]",d\n')
    [chunk] = Opened(path, NUMBERS).chunks()
    assert list(map(orjson.loads, chunk.inputs["x"].to_pylist())) == [[1, 2, 3], [4.5, 5, 6]]
    assert [(fault.row, fault.type) for fault in chunk.faults] == [(1, "invalid_instance"), (2, "missing")]


@pytest.mark.parametrize("neighbour", ["[", '"[1, 2]"'])
@pytest.mark.parametrize(
    ("dtype", "cells"), [("float32", "1.5 .5 007 1_0 nan"), ("int64", "12 007 2.5"), ("bool", "true 0 2")]
)
def test_a_list_changes_no_neighbour(tmp_path: Path, dtype: str, cells: str, neighbour: str) -> None:
    spec = spec_of(x={"kind": "tensor", "dtype": dtype, "shape": [1]})
    alone, among = tmp_path / "alone.csv", tmp_path / "among.csv"
    alone.write_text("\n".join(["x", *cells.split()]))
    among.write_text("\n".join(["x", *cells.split(), neighbour]))
    wanted, got = Opened(alone, spec), Opened(among, spec)
    count = len(cells.split())
    assert {row: fault for row, fault in got.faults().items() if row < count} == wanted.faults()
    values = everything(wanted.chunks(), "x")
    assert everything(got.chunks(), "x")[: len(values)] == [str(value).lower() for value in values]


def test_a_hexadecimal_number_is_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n16\n0x10\n0X1F\n")
    opened = Opened(path, spec_of(x={"kind": "tensor", "dtype": "int64", "shape": [1]}))
    assert everything(opened.chunks(), "x") == [16]
    assert sorted(opened.faults()) == [1, 2]


def test_what_would_not_stay_as_it_is_written_stays_a_string(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "text,id,code,exact,tiny,signed,padded\nx,1e5,12E3,0.123456789012345678,1e-7,1e+16,2.500000000000000000\n"
        "x,2e5,1,0.5,0.12345678901234567,-1e5,3.5\n"
    )
    opened = Opened(path, TEXTS)
    kinds = {field.name: str(field.type) for field in opened.reading.passed}
    assert {name for name, kind in kinds.items() if kind == "string"} == {"id", "code", "exact"}
    assert {name for name, kind in kinds.items() if kind == "double"} == {"tiny", "signed", "padded"}
    assert everything(opened.chunks(), "id") == ["1e5", "2e5"]


def test_a_byte_order_mark_in_a_cell_stays_wherever_chunks_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbftext,id\n" + b"\xef\xbb\xbfa,1\nb\n\xef\xbb\xbf\xff,2\n\xef\xbb\xbfc,3\n")
    opened = Opened(path, TEXTS)
    wanted = [b"\xef\xbb\xbfa", b"\xef\xbb\xbf\xff", b"\xef\xbb\xbfc"]
    for rows in (1, 2, 1000):
        assert everything(opened.chunks(chunk_rows=rows), "text") == wanted
    assert list(opened.faults()) == [1]


@pytest.mark.parametrize("before", ["\n" * (2 << 20), ""])
def test_columns_are_told_by_a_row_wherever_it_ends(tmp_path: Path, before: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(before + "text,id\n" + before + "a" * (3 << 20) + ",1\nb,2\n")
    opened = Opened(path, TEXTS)
    assert opened.reading.passed.field("id").type == pa.int64()
    assert everything(opened.chunks(), "id") == [1, 2]


def test_a_file_without_rows_tells_no_types(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\n")
    (tmp_path / "b.csv").write_text("text,id\na,1\n")
    assert everything(Opened(tmp_path, TEXTS).chunks(), "id") == [1]


def test_an_image_is_written_in_base64(tmp_path: Path) -> None:
    spec = spec_of(image={"kind": "image", "size": [8, 8], "channels": "gray", "mean": [0.5], "std": [0.25]})
    path = tmp_path / "t.csv"
    path.write_text("image,id\niVBORw==,1\nno base64,2\n")
    assert everything(Opened(path, spec).chunks(), "image") == [b"\x89PNG", b"no base64"]


def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"text,id\n" + b"abc,1\n" * 100_000)[:-100])
    with pytest.raises(InputUnreadable, match=r"t\.csv\.gz: .*is it whole"):
        Opened(path, TEXTS)


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_names_are_read_quoted_and_after_a_byte_order_mark(tmp_path: Path, start: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(start + '"te\nxt"\tid\na,b\t1\n', encoding="utf-8")
    opened = Opened(path, TEXTS, mapping={"text": "te\nxt"})
    assert everything(opened.chunks(), "text") == [b"a,b"]


def test_a_compressed_file_is_one_unit(tmp_path: Path) -> None:
    rows = [f'"line\n{index}",{index}' for index in range(5000)]
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(("text,id\n" + "\n".join(rows)).encode()))
    opened = Opened(path, TEXTS, unit_rows=100)
    assert [unit.rows for unit in opened.units] == [5000]
    chunks = opened.chunks(chunk_rows=300)
    assert everything(chunks, "id") == list(range(5000))
    assert everything(chunks, "text")[4321] == b"line\n4321"


def test_empty_files_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    assert Opened(tmp_path, TEXTS).units == []
    (tmp_path / "b.csv").write_text("text,id\n")
    assert Opened(tmp_path, TEXTS).units == []
    (tmp_path / "c.csv").write_text("id,text\n1,a\n\n\n2,b")
    opened = Opened(tmp_path, TEXTS, unit_rows=1)
    assert everything(opened.chunks(), "text") == [b"a", b"b"]
