"""What several folders of tests share: models trained and exported once per session, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import ROOT, run_polyhead

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does, before a test imports torch


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few epochs are enough for everything but the accuracy, which tests/unit/models holds."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    run_polyhead("train", "digits", "--out", run, "--epochs", 6)
    return run


@pytest.fixture(scope="session")
def digits_bundle(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundles") / "digits"
    run_polyhead("export", digits_run, "--out", bundle)
    return bundle


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The README's "your own model": trained and exported by the commands that stand there."""
    example = ROOT / "examples" / "own_model"
    run = tmp_path_factory.mktemp("runs") / "wine"
    subprocess.run([sys.executable, str(example / "train.py"), str(run)], check=True, timeout=300, capture_output=True)
    bundle = tmp_path_factory.mktemp("bundles") / "wine"
    weights, samples = run / "weights.safetensors", run / "samples.safetensors"
    run_polyhead(
        *("export", "--factory", f"{example / 'net.py'}:build", "--weights", weights, "--samples", samples),
        *("--spec", example / "spec.yaml", "--out", bundle),
    )
    return {"example": example, "weights": weights, "samples": samples, "bundle": bundle}
