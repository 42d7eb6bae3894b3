"""The command line: exit statuses, one-line errors, output for people and for programs."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.command import ROOT, run_polyhead

VERBS = ("train", "export", "inspect", "verify", "report", "enrol", "package", "serve", "deploy", "predict", "score")
VERBS += ("bench",)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb):
    text = run_polyhead(verb, "--help").stdout
    assert "Example: polyhead " + verb in text


def test_help_lists_every_verb_and_version_is_printed():
    assert all(re.search(rf"^  {verb} ", run_polyhead("--help").stdout, re.M) for verb in VERBS)
    assert re.fullmatch(r"polyhead \d+\.\d+\.\d+\n", run_polyhead("--version").stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train", "digits"],
        ["export", "--out", "x"],
        ["export", "run", "--factory", "a:b", "--out", "x"],
        ["export", "--factory", "a:b", "--out", "x"],
        ["package", "x", "--to", "zip", "--out", "y"],
        ["predict", "digits", "no-such-file.png"],
    ],
)
def test_bad_usage_is_status_2(arguments):
    assert run_polyhead(*arguments, expect=2).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "dogits", "--out", "x"], "polyhead: no reference model 'dogits' (there are: digits, "),
        (["export", ".", "--out", "x"], "polyhead: .: is no finished training run (it has no run.json)"),
        (["inspect", "."], "polyhead: .: is no bundle (it has no manifest.json)"),
        (["verify", "nowhere"], "polyhead: nowhere: is no directory"),
        (["serve", "."], "polyhead: .: is no bundle and holds none"),
    ],
)
def test_a_job_that_fails_is_status_1_and_one_line(tmp_path, arguments, message):
    result = run_polyhead(*arguments, expect=1, cwd=tmp_path)
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in result.stderr


def test_a_path_that_cannot_be_written_is_one_line(digits_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    result = run_polyhead("package", digits_bundle, "--to", "mar", "--out", tmp_path / "file", expect=1)
    assert result.stderr == f"polyhead: {tmp_path / 'file'}: File exists\n"


def test_predict_with_a_head_that_no_header_can_carry_is_one_line():
    result = run_polyhead(
        "predict", "m", ROOT / "examples" / "seven.png", "--heads", "é", "--url", "http://127.0.0.1:9", expect=1
    )
    assert len(result.stderr.splitlines()) == 1


def test_predict_without_a_server_says_so(tmp_path):
    (tmp_path / "rows.json").write_text("[[1]]")
    result = run_polyhead("predict", "m", tmp_path / "rows.json", "--url", "http://127.0.0.1:9", expect=1)
    assert result.stderr.startswith("polyhead: no answer from http://127.0.0.1:9")


def test_inspect_shows_heads_labels_units_and_metrics(digits_bundle):
    text = run_polyhead("inspect", digits_bundle).stdout
    for part in ("digits/1.0", "8 x 8 pixels, gray", "10 labels: 0, 1, 2", "even, odd", "1 value level", "64 numbers"):
        assert part in text
    assert "accuracy" in text
    content = json.loads(run_polyhead("inspect", digits_bundle, "--json").stdout)
    assert list(content["spec"]["heads"]) == ["digit", "parity", "ink", "embedding"]


def test_verify_replays_every_graph(digits_bundle):
    content = json.loads(run_polyhead("verify", digits_bundle, "--json").stdout)
    graphs = ["fused-onnx", "fused-torchscript", "fused-program", "trunk-onnx"]  # with the heads behind the last
    assert [graph["graph"] for graph in content["graphs"]] == graphs
    for graph in content["graphs"]:
        assert set(graph["heads"]) == {"digit", "parity", "ink", "embedding"}
        assert max(graph["heads"].values()) < 1e-3


def test_verify_names_the_file_that_was_changed(digits_bundle, tmp_path):
    copy = tmp_path / "digits"
    shutil.copytree(digits_bundle, copy)
    with (copy / "graphs" / "fused.ts").open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    assert "graphs/fused.ts was changed" in run_polyhead("verify", copy, expect=1).stderr


def test_export_of_a_spec_with_a_head_the_network_lacks_names_it_and_leaves_nothing(wine, tmp_path):
    text = (wine["example"] / "spec.yaml").read_text() + "  colour: {kind: regression}\n"
    (tmp_path / "spec.yaml").write_text(text)
    result = run_polyhead(
        *("export", "--factory", f"{wine['example'] / 'net.py'}:build", "--weights", wine["weights"]),
        *("--spec", tmp_path / "spec.yaml", "--out", tmp_path / "bundle"),
        expect=1,
    )
    last = result.stderr.splitlines()[-1]
    assert last.startswith("polyhead: head 'colour' is in the spec, but the network returns no 'colour'")
    assert [p.name for p in tmp_path.iterdir()] == ["spec.yaml"]


def test_the_readmes_own_model_is_as_short_as_it_says(wine):
    assert len((wine["example"] / "net.py").read_text().splitlines()) <= 30
    assert len((wine["example"] / "spec.yaml").read_text().splitlines()) <= 15
    assert "polyhead" not in (wine["example"] / "net.py").read_text().replace("knows nothing of Polyhead", "").lower()
