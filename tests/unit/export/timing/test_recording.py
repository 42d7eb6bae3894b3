"""The choice from given times, and how it gets into a bundle and is followed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from polyhead.export.assemble import export
from polyhead.export.enrol import enrol
from polyhead.export.errors import ExportError
from polyhead.export.source import Source
from polyhead.export.timing.contenders import Contender
from polyhead.export.timing.recording import fastest, record
from polyhead.export.timing.results import Results, summarised
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError
from polyhead.serving.protocol import json
from polyhead.serving.request import HttpRequest
from polyhead.serving.settings import Settings
from polyhead.serving.tuning import TUNING, Choice, Tuning
from tests.unit.export.timing.conftest import replace

EAGER = Contender("eager", "fp32", "cpu")
ONNX = Contender("onnxruntime", "fp32", "cpu", "fused-onnx")
SCRIPT = Contender("torchscript", "fp32", "cpu", "fused-torchscript")
HALF = Contender("onnxruntime", "fp16", "cpu", "fused-onnx-fp16")
ON_CUDA = Contender("torchscript", "fp32", "cuda:0", "fused-torchscript")
HALF_ON_CUDA = Contender("onnxruntime", "fp16", "cuda:0", "fused-onnx-fp16")
CHOICE = Choice(
    graph="fused-torchscript", runtime="torchscript", threads=2, batch=8, rows_per_second=9.5, machine="a machine"
)


def results(seconds: dict[Contender, tuple[float, float]]) -> Results:
    """Of one round at batches 1 and 8."""
    times = {(who, batch): [[t]] for who, pair in seconds.items() for batch, t in zip((1, 8), pair, strict=True)}
    return Results(
        model="wine/1.0",
        bundle="0" * 64,
        machines={"cpu": "a processor", "cuda:0": "a GPU"},
        threads=2,
        load=0.0,
        rounds=1,
        batches=(1, 8),
        eager=None,
        timings=tuple(summarised(times, list(seconds), (1, 8))),
        refused=(),
    )


@pytest.fixture
def manifest(made):
    """With a graph of fp16, made for GPUs."""
    manifest = made.bundle.manifest
    half = manifest.graphs[0].model_copy(update={"id": "fused-onnx-fp16", "precision": "fp16", "meant": ("cuda",)})
    return manifest.model_copy(update={"graphs": (*manifest.graphs, half)})


def test_the_fastest_at_the_batch_asked_for(manifest):
    found = results({EAGER: (0.001, 0.001), ONNX: (0.1, 0.9), SCRIPT: (0.2, 0.4)})
    assert fastest(found, manifest, 1)["cpu"].graph == "fused-onnx"
    choice = fastest(found, manifest, 8)["cpu"]
    assert choice == Choice(
        graph="fused-torchscript",
        runtime="torchscript",
        threads=2,
        batch=8,
        rows_per_second=20.0,
        machine="a processor",
    )


def test_less_than_fp32_is_chosen_only_where_that_was_asked_for_and_where_it_is_meant_for(manifest):
    found = results({ONNX: (1, 1), HALF: (0.1, 0.1), ON_CUDA: (1, 1), HALF_ON_CUDA: (0.1, 0.1)})
    assert {kind: c.graph for kind, c in fastest(found, manifest, 8).items()} == {
        "cpu": "fused-onnx",
        "cuda": "fused-torchscript",
    }
    assert {kind: c.graph for kind, c in fastest(found, manifest, 8, any_precision=True).items()} == {
        "cpu": "fused-onnx",
        "cuda": "fused-onnx-fp16",
    }


@pytest.mark.parametrize(
    ("seconds", "batch", "message"),
    [
        ({ONNX: (1, 1)}, 3, r"batch 3 was not timed \(batches: 1, 8\)"),
        (
            {EAGER: (1, 1)},
            8,
            r"no fp32 graph \(--any-precision takes others\) was timed on a device that",
        ),
        ({HALF: (1, 1)}, 8, "no fp32 graph"),
    ],
)
def test_nothing_to_choose_is_an_error(manifest, seconds, batch, message):
    with pytest.raises(ExportError, match=message):
        fastest(results(seconds), manifest, batch)


def test_a_bundle_with_a_choice_is_the_same_but_for_that_and_is_followed(copy: Bundle):
    before = dict(copy.manifest.files)
    assert Engine.load(copy, device="cpu").graph.id == "fused-onnx"
    written = record(copy, {"cpu": CHOICE})
    assert written.digest != copy.digest
    assert Bundle.open(copy.folder).digest == written.digest
    assert set(written.manifest.files) - set(before) == {TUNING}
    assert {name: written.manifest.files[name] for name in before} == before
    assert written.manifest.model_copy(update={"files": before}) == copy.manifest
    assert [path.name for path in copy.folder.parent.iterdir()] == [copy.folder.name]
    engine = Engine.load(Bundle.open(copy.folder), device="cpu")
    assert (engine.graph.id, engine.runtime.name) == ("fused-torchscript", "torchscript")
    engine.replay_golden()
    assert Engine.load(written, "onnxruntime", "cpu").graph.id == "fused-onnx"  # what is asked for by name comes first


def test_what_was_chosen_for_another_device_stays(copy: Bundle):
    record(copy, {"cuda": CHOICE})
    tuning = record(Bundle.open(copy.folder), {"cpu": CHOICE.model_copy(update={"batch": 64})}).tuning()
    assert tuning is not None
    assert {kind: choice.batch for kind, choice in tuning.devices.items()} == {"cuda": 8, "cpu": 64}


def test_a_tuning_file_that_names_no_graph_is_refused_and_measuring_again_mends_it(copy: Bundle):
    written = record(copy, {"cpu": CHOICE})
    gone = Tuning(devices={"cpu": CHOICE.model_copy(update={"graph": "fused-gone"})})
    replace(written.folder, TUNING, gone.dump())
    bundle = Bundle.open(written.folder)
    with pytest.raises(BundleError, match=r"tuning.json names graph 'fused-gone': measure again"):
        Engine.load(bundle, device="cpu")
    assert record(bundle, {"cpu": CHOICE}).tuning() == Tuning(devices={"cpu": CHOICE})


def test_a_file_that_was_changed_is_not_carried_over(copy: Bundle, tmp_path: Path):
    before = Path(shutil.copytree(copy.folder, tmp_path / "before"))
    (copy.folder / "parity.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"parity.json has 2 bytes"):
        record(copy, {"cpu": CHOICE})
    assert not (copy.folder / TUNING).exists()
    assert (copy.folder / "manifest.json").read_bytes() == (before / "manifest.json").read_bytes()


class Same(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"who": x * 1.0}


def test_a_class_enrolled_later_leaves_the_choice_as_it_is(tmp_path: Path):
    spec = ModelSpec.parse(
        {
            "name": "faces",
            "version": "1",
            "inputs": {"x": {"kind": "tensor", "shape": [2]}},
            "heads": {"who": {"kind": "oneshot", "dim": 2}},
        }
    )
    source = Source(Same(), spec, {"x": np.eye(2, dtype=np.float32)})
    bundle = record(export(source, tmp_path / "faces", ["torchscript"])[0], {"cpu": CHOICE})
    query = json.decode(HttpRequest(b'{"instances": [[1, 0]]}', "application/json"), spec, Settings())
    made = enrol(bundle, "who", {"ana": [query]}, tmp_path / "new")
    assert made.tuning() == bundle.tuning() == Tuning(devices={"cpu": CHOICE})
