"""Rows that cannot be scored: each is quarantined, with its reason, and no other row is the worse for it."""

from __future__ import annotations

import base64
import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_wine

from tests.command import run_polyhead

ROWS = int(os.environ.get("POLYHEAD_SOAK_ROWS", "200000"))  # a million by `make soak`
ONE_IN = 1000
GOOD = [float(value) for value in load_wine().data[0, 1:]]


def line(values: object) -> bytes:
    return json.dumps({"id": "ID", "measurements": values}).replace('"ID"', "%d").encode()


# Of JSON Lines: what stands in the line of a row (%d: its number), and the stage and type of its fault.
KINDS: dict[str, tuple[bytes, str, str]] = {
    "the input is missing": (b'{"id": %d}', "decode", "missing"),
    "null": (line(None), "decode", "invalid_instance"),
    "a word": (line("red"), "decode", "invalid_instance"),
    "an object": (line({"a": 1}), "decode", "invalid_instance"),
    "too few numbers": (line(GOOD[:-1]), "decode", "invalid_instance"),
    "too many numbers": (line([*GOOD, 1.0]), "decode", "invalid_instance"),
    "a list in a list": (line([GOOD]), "decode", "invalid_instance"),
    "a null among numbers": (line([*GOOD[:-1], None]), "decode", "invalid_instance"),
    "a word among numbers": (line([*GOOD[:-1], "x"]), "decode", "invalid_instance"),
    "infinite as float32": (line([*GOOD[:-1], 1e39]), "decode", "input_not_finite"),
    "broken JSON": (b'{"id": %d, "measurements": [1, 2', "read", "malformed_row"),
    "invalid UTF-8": (b'{"id": %d, "measurements": "\xff\xfe"}', "read", "not_utf8"),
    "no object": (b"[%d]", "read", "malformed_row"),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> tuple[Path, dict[int, str]]:
    """A table as JSON Lines, and which of its rows are bad in which way."""
    wines = load_wine().data[:, 1:]
    good = [json.dumps([float(v) for v in row]).encode() for row in wines]
    places = np.random.default_rng(0).choice(ROWS, max(len(KINDS), ROWS // ONE_IN), replace=False)
    kinds = {int(place): list(KINDS)[number % len(KINDS)] for number, place in enumerate(places)}
    path = tmp_path_factory.mktemp("tables") / "in.jsonl"
    with path.open("wb") as file:
        for row in range(ROWS):
            kind = kinds.get(row)
            text = b'{"id": %d, "measurements": ' + good[row % len(good)] + b"}" if kind is None else KINDS[kind][0]
            file.write(text.replace(b"%d", str(row).encode()) + b"\n")
    return path, kinds


@pytest.fixture(scope="module")
def scored(wine, rows, tmp_path_factory) -> tuple[Path, str]:
    """The table scored, and the last line that the command said: some rows are missing, which is status 3."""
    out = tmp_path_factory.mktemp("bad") / "out"
    result = run_polyhead(
        "score", wine["bundle"], rows[0], out, "--unit-rows", max(1000, ROWS // 10), "--device", "cpu", expect=3
    )
    return out, result.stderr.splitlines()[-1]


def test_exactly_the_bad_rows_are_quarantined_with_stage_type_and_reason(rows, scored):
    path, kinds = rows
    found = pq.read_table(scored[0] / "_quarantine").sort_by("row").to_pylist()
    assert [row["row"] for row in found] == sorted(kinds)
    for row in found:
        _, stage, kind = KINDS[kinds[row["row"]]]
        assert (row["stage"], row["type"]) == (stage, kind), row
        assert row["file"] == str(path)
        assert row["message"]
        assert "\n" not in row["message"]
        assert row["attempts"] == 1


def test_every_other_row_is_there_once_in_order_and_its_answer_unharmed(rows, scored):
    table = ds.dataset(scored[0]).to_table()
    ids = table.column("id").to_numpy()
    good = np.setdiff1d(np.arange(ROWS), sorted(rows[1]))
    assert np.array_equal(ids, good)
    values = pc.struct_field(table.column("alcohol"), "value").to_numpy()
    wines = len(load_wine().data)
    first = np.array([values[np.argmax(ids % wines == place)] for place in range(wines)])
    assert np.allclose(values, first[ids % wines], rtol=1e-4, atol=1e-5)


def test_the_last_line_says_how_many_of_what(rows, scored):
    out, last = scored
    bad = len(rows[1])
    assert last.startswith(f"{out}: {ROWS - bad:,} of {ROWS:,} rows scored, {bad:,} quarantined in _quarantine/ (")
    for kind, count in Counter("/".join(KINDS[kind][1:]) for kind in rows[1].values()).items():
        assert f"{kind} {count:,}" in last


def test_a_budget_that_is_kept_is_status_0_and_one_that_is_not_keeps_what_was_done(wine, tmp_path):
    rows = [b'{"id": %d}' % n if n % 100 == 50 else line(GOOD).replace(b"%d", b"%d" % n) for n in range(1000)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(rows))
    command = ("score", wine["bundle"], tmp_path / "in.jsonl", tmp_path / "out", "--unit-rows", 100, "--workers", 1)
    failed = run_polyhead(*command, "--max-bad-rows", 3, expect=1)
    assert "--max-bad-rows is 3" in failed.stderr.splitlines()[-1]
    assert len(list((tmp_path / "out" / "_polyhead" / "receipts").glob("*.json"))) == 4
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    report = json.loads(run_polyhead(*command, "--max-bad-ratio", 0.01, "--resume", "--json").stdout)
    assert (report["resumed"], report["quarantined"], report["scored"]) == (4, 10, 990)


def test_pictures_that_are_none(digits_bundle, tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 128).save(buffer, "PNG")
    good = buffer.getvalue()
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    pictures = [good, b"", good[:40], b"GIF89a", None, bomb.getvalue(), good]
    pq.write_table(pa.table({"n": range(7), "image": pa.array(pictures, pa.binary())}), tmp_path / "in.parquet")
    run_polyhead("score", digits_bundle, tmp_path / "in.parquet", tmp_path / "out", "--device", "cpu", expect=3)
    table = ds.dataset(tmp_path / "out").to_table()
    assert table.column("n").to_pylist() == [0, 6]
    assert table.slice(0, 1).drop_columns("n").equals(table.slice(1, 1).drop_columns("n"))
    quarantine = {row["row"]: row for row in pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()}
    assert sorted(quarantine) == [1, 2, 3, 4, 5]
    assert {row["stage"] for row in quarantine.values()} == {"decode"}
    assert "9000 x 9000 pixels" in quarantine[5]["message"]
    retried = run_polyhead("score", "retry-quarantine", tmp_path / "out", "--max-image-pixels", 10**8, expect=3)
    assert retried.stderr.splitlines()[-1].startswith(f"{tmp_path / 'out'}: 3 of 7 rows scored, 4 quarantined")
    assert ds.dataset(tmp_path / "out").to_table().column("n").to_pylist() == [0, 5, 6]
    run_polyhead("score", "verify", tmp_path / "out")


def test_texts_that_are_none(smarthome_bundle, tmp_path):
    long = "lights " * 200
    data = [b"turn on the light", b"\xff\xfe", long.encode(), None, "Zoë’s fan".encode()]
    offsets = np.cumsum([0, *(len(d or b"") for d in data)], dtype=np.int32)
    valid = np.packbits([d is not None for d in data], bitorder="little").tobytes()
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(d or b"" for d in data))]
    text = pa.StringArray.from_buffers(len(data), buffers[1], buffers[2], buffers[0], null_count=1)
    pq.write_table(pa.table({"n": range(len(data)), "text": text}), tmp_path / "in.parquet")
    run_polyhead(
        "score",
        smarthome_bundle,
        tmp_path / "in.parquet",
        tmp_path / "out",
        "--workers",
        1,
        "--device",
        "cpu",
        expect=3,
    )
    assert ds.dataset(tmp_path / "out").to_table().column("n").to_pylist() == [0, 4]
    found = {row["row"]: row["message"] for row in pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()}
    assert sorted(found) == [1, 2, 3]
    assert "UTF-8" in found[1]
    assert "tokens" in found[2] or "characters" in found[2]


def test_a_csv_with_ragged_lines(wine, tmp_path):
    names = ",".join(f"f{i}" for i in range(12))
    good = ",".join(map(str, GOOD))
    lines = [
        f"id,{names}",
        f"0,{good}",
        "1,2,3",
        f"2,{good},9",
        f"3,{good.replace('.', 'x')}",
        f"4,{good}",
        "5" + "," * 12,
    ]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    flags = ("--map", "measurements=f*", "--max-bad-rows", 4)
    run_polyhead("score", wine["bundle"], tmp_path / "in.csv", tmp_path / "out", *flags)
    assert ds.dataset(tmp_path / "out").to_table().column("id").to_pylist() == [0, 4]
    found = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert [(row["row"], row["stage"]) for row in found] == [(1, "read"), (2, "read"), (3, "decode"), (5, "decode")]


def test_base64_of_a_picture_may_be_wrong_too(digits_bundle, tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    good = base64.b64encode(buffer.getvalue()).decode()
    rows = [{"image": {"b64": good}}, {"image": {"b64": "%%%"}}, {"image": {"url": "http://x"}}, {"image": 7}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_polyhead("score", digits_bundle, tmp_path / "in.jsonl", tmp_path / "out", "--max-bad-ratio", 0.75)
    found = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert [(row["row"], row["stage"]) for row in found] == [(1, "decode"), (2, "decode"), (3, "decode")]
