"""The README's own model, untrained, in every format; and a bundle of it in which two of the three graphs are bad."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import safetensors.torch
import torch

from polyhead.export.assemble import export
from polyhead.export.source import build, from_factory
from polyhead.export.timing.contenders import NetworkPlace
from polyhead.export.writing import FORMATS
from polyhead.serving.bundle import MANIFEST, Bundle
from tests.command import ROOT

EXAMPLE = ROOT / "examples" / "own_model"
FACTORY = f"{EXAMPLE / 'net.py'}:build"


@dataclass(frozen=True)
class Made:
    """A bundle, and where the network is that it was made of."""

    bundle: Bundle
    place: NetworkPlace


def make(folder: Path, seed: int) -> Made:
    torch.manual_seed(seed)
    weights = folder / f"{seed}.safetensors"
    safetensors.torch.save_model(build(FACTORY), str(weights))
    place = NetworkPlace(factory=FACTORY, weights=weights, spec=EXAMPLE / "spec.yaml")
    source = from_factory(FACTORY, weights, EXAMPLE / "spec.yaml")
    bundle, _ = export(source, folder / f"wine-{seed}", FORMATS if seed == 0 else ("torchscript",))
    return Made(bundle, place)


def replace(folder: Path, name: str, data: bytes) -> None:
    """Another file in a bundle, with its hash in the manifest."""
    (folder / name).write_bytes(data)
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("timing"), 0)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same network with other weights."""
    return make(tmp_path_factory.mktemp("timing"), 1)


@pytest.fixture(scope="session")
def mixed(made: Made, other: Made, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its ONNX graph is right; its TorchScript graph is another network's; its program is none."""
    folder = Path(shutil.copytree(made.bundle.folder, tmp_path_factory.mktemp("timing") / "mixed"))
    replace(folder, "graphs/fused.ts", other.bundle.read("graphs/fused.ts"))
    replace(folder, "graphs/fused.pt2", b"no program")
    return Bundle.open(folder)


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Bundle:
    """A bundle that the test may change."""
    return Bundle.open(Path(shutil.copytree(made.bundle.folder, tmp_path / "wine")))
