"""Small real bundles for the serving tests: seeded networks, real exports, real runtimes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array

MLP = {
    "name": "mlp",
    "version": "1.0",
    "inputs": {"x": {"kind": "tensor", "shape": [6]}},
    "heads": {  # not in the order of their names: the graph sorts, the answers must not
        "tags": {"kind": "multilabel", "labels": ["wet", "hot", "old"], "threshold": [0.4, 0.5, 0.6]},
        "color": {"kind": "classification", "labels": ["red", "green", "blue", "black"]},
        "level": {"kind": "regression", "unit": "K"},
        "position": {"kind": "regression", "unit": "m", "dim": 3},
        "vector": {"kind": "embedding", "dim": 5, "normalize": True},
    },
}
PICTURE = {
    "name": "picture",
    "version": "2.0",
    "inputs": {"image": {"kind": "image", "size": [8, 8], "channels": "gray", "mean": [0.5], "std": [0.25]}},
    "heads": {
        "shape": {"kind": "classification", "labels": ["round", "square", "long"]},
        "ink": {"kind": "regression"},
    },
}
LOGARITHM = {
    "name": "logarithm",
    "version": "1.0",
    "inputs": {"x": {"kind": "tensor", "shape": [2]}},
    "heads": {"log": {"kind": "regression", "dim": 2}, "half": {"kind": "regression", "dim": 2}},
}
LOOKUP = {
    "name": "lookup",
    "version": "1.0",
    "inputs": {"index": {"kind": "tensor", "dtype": "int64", "shape": [1]}},
    "heads": {"entry": {"kind": "embedding", "dim": 3}},
}


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 16)
        widths = {"tags": 3, "color": 4, "level": 1, "position": 3, "vector": 5}
        self.heads = nn.ModuleDict({name: nn.Linear(16, width) for name, width in widths.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(x))
        return {name: head(features) for name, head in self.heads.items()}


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(1, 4, 3, stride=2)
        self.shape = nn.Linear(4, 3)
        self.ink = nn.Linear(4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(image)).mean((2, 3))
        return {"shape": self.shape(features), "ink": self.ink(features)}


class Logarithm(nn.Module):
    """Its answer is not finite where an input is zero or negative; the other head's always is."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"log": torch.log(x), "half": x * 0.5}


class Lookup(nn.Module):
    """The runtime raises where an index is beyond the table. No sums: the same bits at every batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 3)

    def forward(self, index: Tensor) -> dict[str, Tensor]:
        return {"entry": self.table(index[:, 0])}


@dataclass(frozen=True)
class Example:
    """A bundle beside the network it was made of."""

    bundle: Bundle
    network: nn.Module
    samples: Mapping[str, Array]

    def engine(self, runtime: str = "onnxruntime") -> Engine:
        return Engine.load(self.bundle, runtime, "cpu", threads=1)


def _example(factory: pytest.TempPathFactory, network: type[nn.Module], data: dict[str, object]) -> Example:
    spec = ModelSpec.parse(data)
    torch.manual_seed(7)
    made = network().eval()
    samples = random_samples(spec)
    if network is Logarithm:
        samples = {name: np.abs(array) + np.float32(0.1) for name, array in samples.items()}
    bundle, _ = export(Source(made, spec, samples), factory.mktemp("bundles") / spec.name)
    return Example(bundle, made, samples)


@pytest.fixture(scope="session")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A tensor of six numbers; one head of every kind that is served."""
    return _example(tmp_path_factory, Mlp, MLP)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Gray images of 8 x 8 pixels."""
    return _example(tmp_path_factory, Picture, PICTURE)


@pytest.fixture(scope="session")
def logarithm(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Two numbers; the head `log` is not finite where one of them is not positive."""
    return _example(tmp_path_factory, Logarithm, LOGARITHM)


@pytest.fixture(scope="session")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """An index into a table of eight rows; the runtime raises beyond it."""
    return _example(tmp_path_factory, Lookup, LOOKUP)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Example], Path]:
    """Copies an example's bundle to a folder that the test may harm."""

    def copy(example: Example) -> Path:
        return Path(shutil.copytree(example.bundle.folder, tmp_path / "copy"))

    return copy


@pytest.fixture
def forge() -> Callable[[Path, str, bytes], None]:
    """Replaces a file of a bundle and enters its new hash in the manifest, as a careful forger would."""

    def replace(folder: Path, name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (folder / MANIFEST).write_bytes(orjson.dumps(manifest))

    return replace
