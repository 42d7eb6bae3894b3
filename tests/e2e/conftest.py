"""The server that most tests ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import run_polyhead
from tests.once import once
from tests.server import Running, serving

SMARTHOME_EPOCHS = int(os.environ.get("POLYHEAD_SMARTHOME_EPOCHS", "3"))


@pytest.fixture(scope="session")
def server(digits_bundle: Path, wine: dict[str, Path]) -> Iterator[Running]:
    """One server for most tests. The delay is long, so that concurrent requests do meet in a batch."""
    with serving([digits_bundle, wine["bundle"]], "--max-batch-delay", "50", "--max-batch-size", "32") as running:
        yield running


@pytest.fixture(scope="session")
def smarthome_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model of text. Half of its epochs know nearly as much; `make soak` trains by the whole recipe."""
    epochs = ("--epochs", SMARTHOME_EPOCHS)
    return once(
        tmp_path_factory,
        "runs/smarthome",
        lambda run: run_polyhead("train", "smarthome", *epochs, "--out", run, timeout=1500),
    )


@pytest.fixture(scope="session")
def smarthome_bundle(smarthome_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "bundles/smarthome", lambda out: run_polyhead("export", smarthome_run, "--out", out))


@pytest.fixture(scope="session")
def smarthome(smarthome_bundle: Path) -> Iterator[Running]:
    with serving([smarthome_bundle], "--max-batch-delay", "50", "--max-batch-size", "32") as running:
        yield running
