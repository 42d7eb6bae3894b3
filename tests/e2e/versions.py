"""Versions of one small model whose answers can be told beforehand, and which takes as long as a request is long."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec

NAME = "scaled"
WIDTH = 512


class Scaled(nn.Module):
    """`total` is the sum of a row times the version's scale; `work` is there to take time."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        sizes = (4, WIDTH, WIDTH, WIDTH, 8)
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.work = nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"total": x.sum(1, keepdim=True) * self.scale, "work": self.work(x)}


def make(folder: Path, version: str, scale: float) -> Path:
    """A bundle of a version, under its number."""
    spec = ModelSpec.parse(
        {
            "name": NAME,
            "version": version,
            "inputs": {"x": {"kind": "tensor", "shape": [4]}},
            "heads": {"total": {"kind": "regression"}, "work": {"kind": "embedding", "dim": 8}},
        }
    )
    torch.manual_seed(3)
    bundle, _ = export(Source(Scaled(scale).eval(), spec, random_samples(spec)), folder / version)
    return bundle.folder


def renamed(bundle: Path, target: Path, version: str, name: str = NAME) -> Path:
    """The same bundle under another version or name, quicker than an export."""
    shutil.copytree(bundle, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["spec"] |= {"name": name, "version": version}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def rows(count: int, seed: int) -> np.ndarray:
    """Small whole numbers, whose sums are exact."""
    return np.random.default_rng(seed).integers(-50, 50, (count, 4)).astype(np.float32)


def ask(
    client: httpx.Client, sent: np.ndarray, path: str = NAME, heads: tuple[str, ...] = ("total", "work")
) -> httpx.Response:
    return client.post(f"/predictions/{path}", json={"instances": sent.tolist(), "heads": list(heads)})


def totals(response: httpx.Response) -> np.ndarray:
    return np.array([row["total"]["value"] for row in response.json()["predictions"]], dtype=np.float32)


def right(response: httpx.Response, sent: np.ndarray, scale: float) -> bool:
    """Whether every value is that of the version with this scale."""
    return response.status_code == 200 and bool((totals(response) == sent.sum(1) * scale).all())
