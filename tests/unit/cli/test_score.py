"""`polyhead score`: its command line. What it does is tested end to end."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from polyhead.cli.main import app
from polyhead.serving.scoring.errors import JobRefused
from tests.command import run_polyhead


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [1, 2], "picture": pa.array([b"\x89PNG", None], pa.binary())}), path)
    return path


def test_help_shows_scoring_itself_and_names_the_other_verbs():
    text = " ".join(run_polyhead("score", "--help").stdout.split())
    assert "Usage: polyhead score [OPTIONS] {bundle} {INPUT...}... {output}" in text
    assert "Example: polyhead score bundles/digits pictures/ out/" in text
    assert "polyhead score verify OUTPUT" in text
    assert run_polyhead("score").stdout == run_polyhead("score", "--help").stdout


@pytest.mark.parametrize("verb", ["verify", "gc", "retry-quarantine"])
def test_what_was_written_has_verbs_of_its_own(verb, tmp_path):
    assert f"Example: polyhead score {verb} out/" in run_polyhead("score", verb, "--help").stdout
    result = run_polyhead("score", verb, tmp_path, expect=1)
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path) in result.stderr


def test_a_bundle_may_have_the_name_of_a_verb(tmp_path, table):
    result = run_polyhead("score", "./verify", table, "out", expect=1, cwd=tmp_path)
    assert result.stderr.startswith("polyhead: verify: is no directory")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--engine", "spark"], "'spark' is none of local, ray"),
        (["--map", "image"], "'image' is not INPUT=COLUMN"),
        (["--map", "=x"], "'=x' is not INPUT=COLUMN"),
        (["--max-bad-ratio", "2"], "'--max-bad-ratio': Input should be less than or equal to 1"),
        (["--unit-rows", "0"], "'--unit-rows'"),
        (["--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_bad_usage_is_status_2(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["score", "b", "in.parquet", "out", *flags])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_settings_may_stand_in_a_file_and_options_win(digits_bundle, table, tmp_path):
    config = tmp_path / "score.yaml"
    config.write_text("heads: [colour]\nmapping: {image: picture}\n")
    refused = run_polyhead("score", digits_bundle, table, tmp_path / "out", "--config", config, expect=1)
    assert "'colour'" in refused.stderr
    result = run_polyhead(
        *("score", digits_bundle, table, tmp_path / "out", "--config", config, "--heads", "digit", "--workers", 1),
        *("--json", "--max-bad-rows", 2),
    )
    report = json.loads(result.stdout)
    assert (report["rows"], report["scored"], report["quarantined"]) == (2, 0, 2)
    written = pq.read_schema(next((tmp_path / "out").glob("part-*.parquet")))
    assert written.names == ["id", "digit"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ("haeds: [digit]\n", 1, "haeds"),
        ("top_k: -1\n", 1, "top_k"),
        ("- 1\n", 2, "holds no settings"),
        ("a: [\n", 2, "is not YAML"),
    ],
)
def test_a_file_of_settings_is_read_strictly(content, status, words, tmp_path):
    (tmp_path / "score.yaml").write_text(content)
    result = CliRunner().invoke(app, ["score", "b", "in", "out", "--config", str(tmp_path / "score.yaml")])
    assert result.exit_code == status
    assert words in (" ".join(result.stderr.split()) or str(result.exception))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "no column 'image' for input 'image'"),
        (["--map", "picture=image"], "has no input 'picture' (inputs: image)"),
        (["--map", "image=picture", "--heads", "digit,colour"], "'colour'"),
        (["--map", "image=picture", "--columns", "id,age"], "'age'"),
        (["--map", "image=picture", "--filter", "age > 3"], "'age'"),
        (["--map", "image=picture", "--filter", "id >"], "filter 'id >'"),
        (["--map", "image=picture", "--mask", "jpeg"], "mask"),
        (["--map", "image=picture", "--device", "tpu"], "device"),
        (["--map", "image=picture", "--format", "excel"], "format"),
        (["--map", "image=picture", "--ray-address", "auto"], "ask for the engine 'ray'"),
    ],
)
def test_a_job_that_cannot_begin_is_one_line_and_writes_nothing(flags, words, digits_bundle, table, tmp_path):
    result = CliRunner().invoke(app, ["score", str(digits_bundle), str(table), str(tmp_path / "out"), *flags])
    assert isinstance(result.exception, JobRefused)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_such_a_job_has_status_1(digits_bundle, table, tmp_path):
    result = run_polyhead("score", digits_bundle, table, tmp_path / "out", expect=1)
    assert result.stderr.startswith(f"polyhead: {table}: no column 'image' for input 'image' (columns: id, picture)")
    assert len(result.stderr.splitlines()) == 1
