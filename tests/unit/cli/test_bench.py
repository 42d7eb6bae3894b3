"""`polyhead bench`, as a user runs it, briefly; which contender is fastest is not looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from polyhead.cli.bench import show
from polyhead.export.timing.contenders import Contender
from polyhead.export.timing.measuring import NO_EAGER
from polyhead.export.timing.results import Refusal, Results, summarised
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from tests.command import run_polyhead


def test_everything_is_timed_reported_and_recorded(digits_bundle: Path, digits_run: Path, tmp_path: Path):
    bundle = Path(shutil.copytree(digits_bundle, tmp_path / "digits"))
    before = Bundle.open(bundle)
    result = run_polyhead(
        *("bench", bundle, "--run", digits_run, "--out", tmp_path / "report", "--write", "--json", "--device", "cpu"),
        *("--batch", 4, "--batch", 1, "--rounds", 2, "--seconds", 0, "--threads", 1, "--for-batch", 1),
    )
    content = json.loads(result.stdout)
    fused = [graph for graph in before.manifest.graphs if graph.part == "fused"]
    timed = {(timing["contender"], timing["batch"]) for timing in content["timings"]}
    assert {("eager", 1), ("eager", 4), ("onnxruntime fp32", 1), ("torchscript fp32", 4)} <= timed
    assert {timing["graph"] for timing in content["timings"]} == {None, *(graph.id for graph in fused)}
    assert content["batches"] == [1, 4]
    assert content["bundle"] == before.digest
    choice = content["tuning"]["cpu"]
    assert (choice["batch"], choice["threads"]) == (1, 1)
    best = max(
        (t for t in content["timings"] if t["batch"] == 1 and t["graph"] and t["precision"] == "fp32"),
        key=lambda timing: timing["rows_per_second"],
    )
    assert (choice["graph"], choice["runtime"]) == (best["graph"], best["runtime"])
    assert "loading eager on cpu" in result.stderr

    saved = json.loads((tmp_path / "report" / "bench.json").read_text())
    assert saved["timings"] == content["timings"]
    assert (tmp_path / "report" / "bench.png").read_bytes().startswith(b"\x89PNG")

    after = Bundle.open(bundle)
    assert content["digest"] == after.digest != before.digest
    engine = Engine.load(after, device="cpu")
    assert (engine.graph.id, engine.runtime.name) == (choice["graph"], choice["runtime"])
    text = run_polyhead("inspect", bundle).stdout
    assert "fastest by polyhead bench" in text
    assert f"{choice['rows_per_second']:,.0f} rows/s at 1" in text
    assert json.loads(run_polyhead("inspect", bundle, "--json").stdout)["tuning"]["cpu"] == choice


def test_the_table_says_who_is_not_in_it(capsys: pytest.CaptureFixture[str]):
    onnx = Contender("onnxruntime", "fp32", "cpu", "fused-onnx")
    refused = {"graph": "g", "runtime": "torchscript", "precision": "fp32", "device": "cpu"}
    results = Results(
        model="wine/1.0",
        bundle="0" * 64,
        machines={"cpu": "a processor", "cuda:0": "a GPU"},
        threads=1,
        load=1000.0,
        rounds=2,
        batches=(8,),
        eager=NO_EAGER,
        timings=tuple(summarised({(onnx, 8): [[0.004], [0.016]]}, [onnx], (8,))),
        refused=(
            Refusal(contender="torchscript fp32", reason="head 'a': error 1", wrong=True, **refused),
            Refusal(contender="program fp32", reason="it is not there", wrong=False, **refused),
        ),
    )
    show(results)
    found = capsys.readouterr()
    assert "wine/1.0 on cpu: a processor, 1 thread; median of 2 rounds" in " ".join(found.out.split())
    assert "beside onnxruntime fp32" in found.out
    assert "cuda:0" not in found.out  # nothing was timed there
    row = next(line for line in found.out.splitlines() if "onnxruntime fp32" in line and "800" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("onnxruntime fp32", "8", "10", "4 to 16", "10", "800", "1.00 x")
    ]
    assert found.err.splitlines() == [
        "the machine was busy when this began (load 1000.0): expect other times when it is not",
        "eager: not timed: give --run, or --factory with --weights and --spec",
        "torchscript fp32 on cpu: refused, it answers wrong: head 'a': error 1",
        "program fp32 on cpu: not timed: it is not there",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "x", "--factory", "a:b"], "give either --run, or --factory, --weights and --spec together"),
        (["--any-precision"], "give --write"),
        (["--write", "--for-batch", "3"], "--for-batch 3 is not timed: give --batch 3 too"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_bad_usage_is_status_2(arguments, message):
    result = run_polyhead("bench", "x", *arguments, expect=2)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_a_report_is_not_written_into_the_bundle(digits_bundle: Path):
    result = run_polyhead("bench", digits_bundle, "--out", digits_bundle / "report", expect=1)
    assert result.stderr.splitlines()[-1].endswith(
        "is in the bundle, which is sealed by its hashes: give another --out"
    )
    assert not (digits_bundle / "report").exists()


def test_help_has_an_example():
    assert "Example: polyhead bench bundles/digits --write" in run_polyhead("bench", "--help").stdout
