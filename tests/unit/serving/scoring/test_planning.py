"""What a job reads is decided once: files found, columns chosen, and every mistake named before work begins."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from polyhead.models.spec import ModelSpec
from polyhead.serving.scoring.errors import InputChanged, InputUnreadable, JobRefused
from polyhead.serving.scoring.planning import plan
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.files import Files, Unreadable
from polyhead.serving.scoring.sources.listing import require_outside
from polyhead.serving.scoring.sources.octets import Octets
from polyhead.serving.scoring.sources.opening import choose_reading, open_input, source_of
from polyhead.serving.scoring.sources.spans import spans
from tests.unit.serving.scoring.inputs import NUMBERS, TEXTS, Opened, everything

HEAD = ModelSpec.parse({**TEXTS.model_dump(mode="json"), "heads": {"id": {"kind": "regression"}}})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a"], "id": [1], "f1": [1.0], "f2": [2.0], "f10": [3.0], "s": ["x"]}), path)
    return path


@given(groups=st.lists(st.integers(0, 500), max_size=30), unit=st.integers(1, 300))
def test_units_cover_all_rows_once_and_are_about_as_large_as_asked(groups: list[int], unit: int) -> None:
    found = list(spans(groups, unit))
    place = 0
    for first, rows in found:
        assert first == place
        assert 1 <= rows <= 1.5 * unit
        place += rows
    assert place == sum(groups)
    assert len(found) <= 2 * place / unit + 2


@pytest.mark.parametrize(
    ("rows", "asked", "units"), [(3_000, 0, 3), (32_000, 0, 16), (1_800_000, 0, 18), (32_000, 8_000, 4), (0, 0, 0)]
)
def test_units_suit_the_input_where_nothing_was_asked_for(tmp_path: Path, rows: int, asked: int, units: int) -> None:
    path = tmp_path / "t.parquet"
    columns = {"text": pa.repeat(pa.scalar("a"), rows), "id": pa.repeat(pa.scalar(1, pa.int8()), rows)}
    pq.write_table(pa.table(columns), path, row_group_size=100_000)
    listing = open_input(path, None)
    found = plan(source_of(choose_reading(listing, TEXTS, ScoreSettings()), listing), asked)
    assert len(found) == units
    assert sum(unit.rows for unit in found) == rows


@pytest.mark.parametrize(
    ("source", "out", "refused"),
    [
        ("data", "data/out", True),
        ("data", "data/_out", False),
        ("data/**/*.parquet", "data/a/out", True),
        ("data/*.parquet", "data/out", False),
        ("data/t.parquet", "data/out", False),
        ("data", "database", False),
    ],
)
def test_answers_must_not_become_input(tmp_path: Path, source: str, out: str, refused: bool) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.parquet").touch()
    with pytest.raises(JobRefused, match="lies in the input") if refused else nullcontext():
        require_outside([str(tmp_path / "elsewhere"), str(tmp_path / source)], str(tmp_path / out))


def test_all_columns_but_the_models_own_pass(table: Path) -> None:
    assert Opened(table, TEXTS).reading.passed.names == ["id", "f1", "f2", "f10", "s"]
    assert Opened(table, TEXTS, columns=("s", "text")).reading.passed.names == ["s", "text"]
    opened = Opened(table, NUMBERS, mapping={"x": "f*"})
    assert opened.reading.inputs == {"x": ("f1", "f2", "f10")}
    assert opened.reading.passed.names == ["text", "id", "s"]


@pytest.mark.parametrize(
    ("spec", "asked", "message"),
    [
        (TEXTS, {"mapping": {"txt": "text"}}, r"no input 'txt' \(inputs: text\)"),
        (
            TEXTS,
            {"mapping": {"text": "tex"}},
            r"no column 'tex' for input 'text' \(columns: text, id.*--map text=COLUMN",
        ),
        (NUMBERS, {}, r"no column 'x' for input 'x' \(columns: text, id, f1"),
        (TEXTS, {"mapping": {"text": "f1,s"}}, "2 columns for one text"),
        (NUMBERS, {"mapping": {"x": "f1,f2"}}, "2 columns for input 'x' of 3 numbers"),
        (NUMBERS, {"mapping": {"x": "f1,f2,s"}}, "column 's' is string, wanted numbers"),
        (NUMBERS, {"mapping": {"x": "f1,f2,f1"}}, "'f1' stands more than once"),
        (TEXTS, {"columns": ("idd",)}, r"--columns: no column 'idd' .*columns: id, text"),
        (TEXTS, {"columns": ("id", "id")}, "'id' stands more than once"),
        (TEXTS, {"filter": "idd > 1"}, "no column 'idd'"),
        (TEXTS, {"filter": "s > 1"}, "string is compared with 1"),
        (HEAD, {}, r"column 'id' would be passed on, and head 'id' .*--columns f1,f2,f10,s"),
        (TEXTS, {"format": "csv"}, "no row of names|not UTF-8|no column"),
    ],
)
def test_a_column_that_is_not_there_is_named_beside_those_that_are(
    table: Path, spec: ModelSpec, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises((JobRefused, InputUnreadable), match=message) as caught:
        Opened(table, spec, **asked)
    assert "\n" not in str(caught.value)


def test_a_heads_name_may_pass_where_that_head_is_not_wanted(table: Path) -> None:
    assert Opened(table, TEXTS, mapping={"text": "s"}, columns=("id",)).reading.passed.names == ["id"]
    two = ModelSpec.parse(
        {**HEAD.model_dump(mode="json"), "heads": {"id": {"kind": "regression"}, "b": {"kind": "regression"}}}
    )
    assert "id" in Opened(table, two, heads=("b",)).reading.passed.names


def test_inputs_that_are_not_there_are_refused(tmp_path: Path, table: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_SUCCESS").touch()
    for source in ("nowhere.parquet", "nowhere/*.csv", "empty"):
        with pytest.raises(JobRefused, match="check the address"):
            Opened(tmp_path / source if "*" not in source else f"{tmp_path}/{source}", TEXTS)
    with pytest.raises(JobRefused, match="no input"):
        Opened([], TEXTS)
    with pytest.raises(JobRefused, match="another file system"):
        Opened([table, "memory://t.parquet"], TEXTS)


def test_a_name_with_signs_of_a_pattern_is_a_name_where_it_is_one(tmp_path: Path, table: Path) -> None:
    odd = tmp_path / "t[1]*.parquet"
    odd.write_bytes(table.read_bytes())
    assert [file.path for unit in Opened(odd, TEXTS).units for file in unit.files] == [str(odd)]


def test_a_file_system_of_fsspec_is_read_and_told_apart_by_version() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/in/a.csv", b"text,id\none,1\n")
    memory.pipe_file("/in/b.jsonl", b'{"text": "two", "id": 2}\n')
    try:
        opened = Opened("memory://in/*.csv", TEXTS)
        assert everything(opened.chunks(), "text") == [b"one"]
        assert everything(Opened("memory://in/b.jsonl", TEXTS).chunks(), "text") == ["two"]
        memory.pipe_file("/in/a.csv", b"text,id\ntwo,1\n")
        with pytest.raises(InputChanged, match="version"):
            opened.chunks()
    finally:
        memory.rm("/in", recursive=True)


class Shaky(fsspec.AbstractFileSystem):
    """A file system on which reading fails, so many times after so many bytes."""

    protocol = "shaky"
    content = b""
    fails = 0
    after = 0

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(self.content), "type": "file", "mtime": 1}

    def _open(self, path: str, *_: Any, **__: Any) -> io.BytesIO:
        return ShakyFile(self)


class ShakyFile(io.BytesIO):
    def __init__(self, owner: Shaky) -> None:
        super().__init__(owner.content)
        self.owner = owner

    def read(self, size: int | None = -1) -> bytes:
        if self.owner.fails and self.tell() >= self.owner.after:
            self.owner.fails -= 1
            raise OSError("the connection broke")
        return super().read(size)


def shaky(content: bytes, fails: int, after: int = 0) -> tuple[Files, Shaky]:
    owner = Shaky(skip_instance_cache=True)
    owner.content, owner.fails, owner.after = content, fails, after
    return Files(fs.PyFileSystem(fs.FSSpecHandler(owner)), pause=0.0), owner


@pytest.mark.parametrize("fails", [0, 1, 4])
def test_reading_goes_on_where_it_failed_for_a_moment(fails: int) -> None:
    files, owner = shaky(bytes(range(250)), fails, after=100)
    octets = Octets(files, "t.csv", 10, 240)
    found = b"".join(iter(lambda: octets.read(30), b""))
    assert found == bytes(range(10, 240))
    assert owner.fails == 0


def test_what_cannot_be_read_is_lost_but_not_where_the_file_system_is_away() -> None:
    files, _ = shaky(bytes(250), fails=1000, after=100)
    octets = Octets(files, "t.csv")
    assert octets.read(100) == bytes(100)
    with pytest.raises(Unreadable, match=r"t\.csv: the connection broke"):
        octets.read(1)
    files, _ = shaky(bytes(250), fails=1000)
    with pytest.raises(InputUnreadable, match=r"does not answer.*--resume"):
        Octets(files, "t.csv").read(1)
