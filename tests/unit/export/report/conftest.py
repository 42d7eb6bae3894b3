"""Bundles whose pages are read."""

from __future__ import annotations

import shutil

import pytest

from polyhead.export import assemble
from polyhead.export.source import Source, random_samples
from polyhead.export.staging import file_entries, write_manifest
from polyhead.export.timing.results import Refusal, Results
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from tests.unit.export.report.wild import METRICS, SPEC, Network, timing


@pytest.fixture(scope="session")
def wild(tmp_path_factory) -> Bundle:
    """Trunk and heads told apart, ONNX alone, with what training measured."""
    folder = tmp_path_factory.mktemp("bundles") / "wild"
    spec = ModelSpec.parse(SPEC)
    bundle, _ = assemble.export(
        Source(Network().eval(), spec, random_samples(spec), metrics=METRICS), folder, formats=("onnx",)
    )
    return bundle


@pytest.fixture
def altered(wild, tmp_path):
    """The bundle anew, with other files (None: without it) and other fields of the manifest."""

    def write(files: dict[str, bytes | None] | None = None, **fields: object) -> Bundle:
        folder = tmp_path / "altered"
        shutil.copytree(wild.folder, folder)
        (folder / "manifest.json").unlink()
        for name, data in (files or {}).items():
            if data is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(data)
        write_manifest(folder, wild.manifest.model_copy(update={**fields, "files": file_entries(folder)}))
        return Bundle.open(folder)

    return write


@pytest.fixture
def results(wild) -> Results:
    """What `polyhead bench` would have found."""
    return Results(
        model=wild.title,
        bundle=wild.digest,
        machines={"cpu": "a <fast> processor"},
        threads=2,
        load=0.5,
        rounds=5,
        batches=(1, 64),
        eager=None,
        timings=(
            timing("eager", 1, 0.004, None),
            timing("eager", 64, 0.016, None),
            timing("onnxruntime fp32", 1, 0.001),
            timing("onnxruntime fp32", 64, 0.008),
        ),
        refused=(
            Refusal(
                contender="torchscript fp32",
                graph="fused-torchscript",
                runtime="torchscript",
                precision="fp32",
                device="cpu",
                reason="head 'intent' does not <reproduce> the golden samples",
                wrong=True,
            ),
        ),
    )
