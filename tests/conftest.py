"""What several folders of tests share: models trained and exported once per session, by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import ROOT, run_polyhead
from tests.once import once

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does, before a test imports torch


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few epochs are enough for everything but the accuracy, which tests/unit/models holds."""
    return once(
        tmp_path_factory, "runs/digits", lambda run: run_polyhead("train", "digits", "--out", run, "--epochs", 6)
    )


@pytest.fixture(scope="session")
def digits_bundle(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "bundles/digits", lambda out: run_polyhead("export", digits_run, "--out", out))


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The README's "your own model": trained and exported by the commands that stand there."""
    example = ROOT / "examples" / "own_model"
    train = [sys.executable, str(example / "train.py")]
    run = once(
        tmp_path_factory,
        "runs/wine",
        lambda folder: subprocess.run([*train, str(folder)], check=True, timeout=300, capture_output=True),
    )
    weights, samples = run / "weights.safetensors", run / "samples.safetensors"
    command = ["export", "--factory", f"{example / 'net.py'}:build", "--weights", weights, "--samples", samples]
    command += ["--spec", example / "spec.yaml"]
    bundle = once(tmp_path_factory, "bundles/wine", lambda out: run_polyhead(*command, "--out", out))
    return {"example": example, "weights": weights, "samples": samples, "bundle": bundle}
