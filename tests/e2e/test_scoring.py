"""`polyhead score` on real bundles: what a server answers, in files that other programs read, whatever happens."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_wine

from polyhead.models.zoo.data.smarthome import rows as utterances
from polyhead.serving.scoring import score
from polyhead.serving.scoring.errors import JobRefused
from tests.alike import assert_alike
from tests.command import POLYHEAD, ROOT, run_polyhead
from tests.server import eventually

CPU = ("--device", "cpu", "--workers", "2")  # not `auto`, which would load PyTorch to look for others
ROWS = 120  # that are compared with a server's answers
ODD = ["", 'He said: "on,\nnow"', "Café in Zoë’s room: 21.5°C", "👩‍🍳 the fan, please", "Rene\u0301e"]


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Digits as PNG files."""
    found = []
    for image in load_digits().images[:ROWS]:
        buffer = io.BytesIO()
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [*ODD, *utterances("test", 1, ROWS - len(ODD)).text]


@pytest.fixture(scope="module")
def wines() -> np.ndarray:
    return load_wine().data[:ROWS, 1:].astype(np.float32)


def answers(out: Path, *passed: str) -> list[dict[str, object]]:
    """What was written, row by row, without the passed columns."""
    return ds.dataset(out).to_table().drop_columns(list(passed)).to_pylist()


def same_as(server, model: str, instances: list[object], found: list[dict[str, object]], **rest: object) -> None:
    """Row by row, head by head, what the server says of the same rows."""
    response = server.predict(model, {"instances": instances, **rest})
    assert response.status_code == 200, response.text
    expected = response.json()["predictions"]
    assert len(found) == len(expected)
    for row in expected:
        for answer in row.values():
            answer.pop("unit", None)  # stands in the schema, once
    assert_alike(expected, found)


def test_pictures_in_every_format_are_answered_as_the_server_answers_them(digits_bundle, server, pictures, tmp_path):
    table = pa.table({"id": range(ROWS), "image": pa.array(pictures, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    pa.feather.write_feather(table, tmp_path / "a.arrow", chunksize=37)
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    lines = [json.dumps({"id": i, "image": {"b64": text}}) for i, text in enumerate(encoded)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (folder / f"{number:04d}.png").write_bytes(picture)
    instances = [{"image": {"b64": text}} for text in encoded]
    written = []
    for name in ("a.parquet", "a.arrow", "a.jsonl", "pictures"):
        out = tmp_path / f"out-{name}"
        score(digits_bundle, tmp_path / name, out, workers=1)
        written.append(ds.dataset(out).to_table())
    same_as(server, "digits", instances, answers(tmp_path / "out-a.parquet", "id"))
    for other in written[1:]:
        assert other.select(["digit", "parity", "ink", "embedding"]).equals(written[0].drop_columns("id"))
    assert written[3]["path"].to_pylist() == [f"deep/{number:04d}.png" for number in range(ROWS)]
    assert written[0].schema.field("ink").type.field("value").metadata == {b"unit": b"level"}


def test_numbers_of_columns_and_of_lists_are_the_same_numbers(wine, server, wines, tmp_path):
    rows = [[float(x) for x in row] for row in wines]
    names = [f"f{number:02d}" for number in range(12)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *names])
        writer.writerows([number, *row] for number, row in enumerate(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": i, "m": row}) + "\n" for i, row in enumerate(rows)))
    table = pa.table({"id": range(ROWS), "measurements": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    score(wine["bundle"], tmp_path / "a.parquet", tmp_path / "p", workers=1)
    score(wine["bundle"], tmp_path / "a.csv", tmp_path / "c", workers=1, mapping={"measurements": "f*"})
    score(wine["bundle"], tmp_path / "a.jsonl", tmp_path / "j", workers=1, mapping={"measurements": "m"})
    same_as(server, "wine", [{"measurements": row} for row in rows], answers(tmp_path / "p", "id"))
    expected = ds.dataset(tmp_path / "p").to_table()
    assert ds.dataset(tmp_path / "c").to_table().equals(expected)
    assert ds.dataset(tmp_path / "j").to_table().equals(expected)


def test_texts_in_every_format_are_answered_as_the_server_answers_them(smarthome_bundle, smarthome, texts, tmp_path):
    table = pa.table({"id": range(ROWS), "said": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    table.to_pandas().to_csv(tmp_path / "a.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        score(smarthome_bundle, tmp_path / name, tmp_path / f"out-{name}", workers=1, mapping={"text": "said"})
    same_as(smarthome, "smarthome", [{"text": text} for text in texts], answers(tmp_path / "out-a.parquet", "id"))
    written = ds.dataset(tmp_path / "out-a.parquet").to_table()
    for name in ("a.csv", "a.jsonl"):
        assert ds.dataset(tmp_path / f"out-{name}").to_table().equals(written)


@pytest.fixture(scope="module")
def table(wines, tmp_path_factory) -> Path:
    """60 000 rows in six row groups: work for a few seconds on one core, in many units."""
    path = tmp_path_factory.mktemp("tables") / "in.parquet"
    many = np.tile(wines, (500, 1))
    column = pa.FixedSizeListArray.from_arrays(pa.array(many.reshape(-1)), 12)
    pq.write_table(pa.table({"id": range(len(many)), "measurements": column}), path, row_group_size=10_000)
    return path


@pytest.fixture(scope="module")
def quiet(wine, table, tmp_path_factory) -> Path:
    """The table, scored without any disturbance."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    run_polyhead("score", wine["bundle"], table, out, "--unit-rows", 2000, *CPU)
    return out


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*")) if path.is_file()}


def test_the_command_says_what_it_did(wine, table, quiet, tmp_path):
    assert sorted(parts(quiet)) == ["_SUCCESS", "_manifest.json", *(f"part-{i:08d}.parquet" for i in range(30))]
    result = run_polyhead("score", wine["bundle"], table, tmp_path / "out", "--unit-rows", 2000, *CPU)
    assert result.stderr.splitlines()[-1] == f"{tmp_path / 'out'}: 60,000 of 60,000 rows scored"
    assert parts(tmp_path / "out") == parts(quiet)
    again = run_polyhead(
        "score", wine["bundle"], table, tmp_path / "out", "--unit-rows", 2000, *CPU, "--resume", "--json"
    )
    assert json.loads(again.stdout)["resumed"] == 30
    assert "whole: 30 parts with 60000 rows" in run_polyhead("score", "verify", tmp_path / "out").stderr
    assert "nothing to remove" in run_polyhead("score", "gc", tmp_path / "out").stderr
    footer = pq.read_metadata(tmp_path / "out" / "part-00000003.parquet").metadata
    assert hashlib.sha256((wine["bundle"] / "manifest.json").read_bytes()).hexdigest() in str(footer)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_too_early_is_gone_on_with(wine, table, quiet, tmp_path, number):
    out = tmp_path / "out"
    command = ["score", wine["bundle"], table, out, "--unit-rows", 2000, *CPU]
    for _ in range(5):
        shutil.rmtree(out, ignore_errors=True)  # on a busy machine the signal may have come too late
        process = subprocess.Popen(
            [str(POLYHEAD), *map(str, command)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert eventually(lambda: len(list(out.glob("_polyhead/receipts/*.json"))) >= 2, 60)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        if process.returncode != 0:
            break
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines()[-1].endswith("the same command with --resume goes on")
    assert not (out / "_SUCCESS").exists()
    refused = run_polyhead(*command, expect=1)
    assert "--resume" in refused.stderr
    report = json.loads(run_polyhead(*command, "--resume", "--json").stdout)
    assert 2 <= report["resumed"] < 30
    assert parts(out) == parts(quiet)


def test_what_changed_is_named_and_refused(wine, digits_bundle, table, tmp_path):
    out, own = tmp_path / "out", tmp_path / "in.parquet"
    shutil.copy(table, own)
    score(wine["bundle"], own, out, unit_rows=20_000)

    def refusal(bundle: Path = wine["bundle"], **changes: object) -> str:
        with pytest.raises(JobRefused) as refused:
            score(bundle, own, out, resume=True, **{"unit_rows": 20_000, **changes})
        return str(refused.value)

    assert re.search(r"setting unit_rows.*20000.*30000", refusal(unit_rows=30_000)) or "units" in refusal(
        unit_rows=30_000
    )
    assert "heads" in refusal(heads=["alcohol"])
    assert "'image'" in refusal(digits_bundle)
    own.write_bytes(table.read_bytes())
    assert "in.parquet" in refusal()
    assert score(wine["bundle"], table, tmp_path / "other", unit_rows=20_000).scored == 60_000


def test_a_bundle_exported_anew_is_another_one(wine, table, tmp_path):
    out, own = tmp_path / "out", tmp_path / "bundle"
    shutil.copytree(wine["bundle"], own)
    score(own, table, out, unit_rows=20_000, heads=["alcohol"])
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["spec"]["description"] = "another"
    (own / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(JobRefused, match="bundle"):
        score(own, table, out, unit_rows=20_000, heads=["alcohol"], resume=True)


def test_a_full_disk_ends_the_job_cleanly_and_it_goes_on(wine, table, quiet, tmp_path):
    """No file may be larger than one part: the kernel refuses the write as it does on a full disk (EFBIG, ENOSPC)."""
    out = tmp_path / "out"
    command = [str(POLYHEAD), "score", wine["bundle"], table, out, "--unit-rows", "2000", *CPU]
    size = (quiet / "part-00000000.parquet").stat().st_size // 2

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    failed = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert failed.returncode == 1, failed.stderr
    assert "there is no room for the output" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    assert not (out / "_SUCCESS").exists()
    run_polyhead(*command[1:], "--resume")
    assert parts(out) == parts(quiet)


FULL = """
mount -t tmpfs -o size=$SIZE tmpfs "$1" || exit 77
shift
out=$1; shift
"$@" ; echo "status $?"
mount -o remount,size=200m "$out" || exit 77
"$@" --resume; echo "status $?"
cp -r "$out/out/." "$out-copy"
"""


def test_a_small_file_system_that_fills_up(wine, table, quiet, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [POLYHEAD, "score", wine["bundle"], table, disk / "out", "--unit-rows", "2000", *CPU]
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", disk, disk, *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SIZE": str(sum(map(len, parts(quiet).values())) // 2)},
    )
    if ran.returncode == 77 or "unshare" in ran.stderr.split(":")[0]:
        pytest.skip(f"this machine lets nobody mount a file system of their own: {ran.stderr.strip()[-200:]}")
    assert ran.stdout.split("\n")[:2] == ["status 1", "status 0"], ran.stderr
    assert "there is no room for the output" in ran.stderr
    assert parts(tmp_path / "disk-copy") == parts(quiet)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An object store that speaks S3, on this machine; the address of a bucket's folder, with what a client needs."""
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="lake")
    yield f"s3://lake/{{}}?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    for key in keys:
        del os.environ[key]
    moto.stop()


def test_an_object_store_takes_input_and_output(wine, table, quiet, bucket, tmp_path):
    from pyarrow import fs

    store, path = fs.FileSystem.from_uri(bucket.format("in/a.parquet"))
    with store.open_output_stream(path) as file:
        file.write(table.read_bytes())
    flags = ("--unit-rows", 20_000, *CPU)
    run_polyhead("score", wine["bundle"], bucket.format("in"), bucket.format("out"), *flags)
    run_polyhead("score", "verify", bucket.format("out"))
    found = ds.dataset("lake/out", filesystem=store).to_table().sort_by("id")
    assert found.equals(ds.dataset(quiet).to_table())
    names = {info.base_name for info in store.get_file_info(fs.FileSelector("lake/out"))}
    assert {"_SUCCESS", "_manifest.json", "part-00000000.parquet"} <= names


def test_other_programs_read_the_directory_as_it_is(quiet, wine, table):
    counted = duckdb.sql(f"select count(*), count(distinct id), min(alcohol.value) from '{quiet}/*.parquet'").fetchone()
    assert counted[:2] == (60_000, 60_000)
    frame = pd.read_parquet(quiet)
    assert list(frame.columns) == ["id", "cultivar", "alcohol"]
    assert list(frame["id"]) == list(range(60_000))
    assert frame["alcohol"][0]["value"] == pytest.approx(frame["alcohol"].map(lambda a: a["value"])[120], rel=1e-5)
    assert pq.read_table(quiet).num_rows == 60_000
    order = duckdb.sql(f"select id from read_parquet('{quiet}/*.parquet') limit 5").fetchall()
    assert order == [(number,) for number in range(5)]


def test_the_examples_of_the_documentation_run(digits_bundle, pictures, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "scoring.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) >= 5
    (tmp_path / "bundles").mkdir()
    shutil.copytree(digits_bundle, tmp_path / "bundles" / "digits")
    images = pa.array([*pictures[:-1], None], pa.binary())
    table = pa.table({"id": range(ROWS), "country": ["NL", "DE"] * (ROWS // 2), "image": images})
    pq.write_table(table, tmp_path / "digits.parquet")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "docs/scoring.md", "exec"), {})
