"""What is measured: a model, and the requests it gets."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image
from torch import nn

from benchmarks import hot_path
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.mlp import MLP
from polyhead.models.trunks.text import TextTrunk, pretrained

__all__ = ["WORKLOADS", "Workload"]

Build = Callable[[], tuple[ModelSpec, MultiTaskNetwork]]
BEST = ("polyhead", "mosec", "mosec-ours")
LOADED = BEST  # whose latency under load is worth its time


@dataclass(frozen=True)
class Workload:
    """A model and its requests.

    Attributes:
        name: on the command line and in the report.
        about: one line.
        format: octets, json, jpeg or text.
        build: the spec and the network, seeded.
        rows: `count` rows of the only input, seeded: float32 `[count, …]`, JPEG files or texts.
        bodies: how many different requests.
        rows_each: rows of one request.
        contenders: that serve it.
        seconds: of one measurement with wrk; a batch takes long where the model is large.
        load_seconds: of the Poisson load.
        slow: a batch takes a good part of a second.
        connections: that the peak is looked for among.
        tokenizer: the file, of a text.
        wanted: by position of a request, the heads that it asks for; None: every request asks for all.
    """

    name: str
    about: str
    format: str
    build: Build
    rows: Callable[[int], Sequence[Any]]
    bodies: int = 64
    rows_each: int = 1
    contenders: Sequence[str] = (*BEST, "torchserve")
    seconds: float = 2.0
    load_seconds: float = 4.0
    slow: bool = False
    connections: Sequence[int] = (32, 64, 128, 256)
    tokenizer: Callable[[], Path] | None = None
    wanted: Callable[[int], Sequence[str]] | None = None

    @property
    def content_type(self) -> str:
        """Of a request."""
        return MEDIA_TYPES[self.format]

    def body(self, rows: Sequence[Any]) -> bytes:
        """One request's."""
        if self.format == "octets":
            return np.ascontiguousarray(rows, dtype="<f4").tobytes()
        if self.format == "json":
            return orjson.dumps({"instances": [{"features": row} for row in rows]}, option=orjson.OPT_SERIALIZE_NUMPY)
        (row,) = rows
        return row if isinstance(row, bytes) else str(row).encode()


MEDIA_TYPES = {
    "octets": "application/octet-stream",
    "json": "application/json",
    "jpeg": "image/jpeg",
    "text": "text/plain",
}

HEADS: Mapping[str, Any] = {
    "intent": {"kind": "classification", "labels": [f"intent {i}" for i in range(16)]},
    "tags": {"kind": "multilabel", "labels": [f"tag {i}" for i in range(8)]},
    "value": {"kind": "regression", "unit": "level"},
}


def numbers(count: int) -> Any:
    """Rows of 768 floats."""
    return np.random.default_rng(1).standard_normal((count, 768)).astype(np.float32)


def mlp() -> tuple[ModelSpec, MultiTaskNetwork]:
    """The small MLP of the hot path, with a unit."""
    inputs = {"features": {"kind": "tensor", "shape": [768]}}
    spec = ModelSpec.parse({"name": "mlp", "version": "1", "inputs": inputs, "heads": dict(HEADS)})
    return spec, _network(spec, MLP(768, (256, 256)))


def photographs(count: int) -> list[bytes]:
    """JPEG files of 224 x 224 pixels, smooth as photographs are: noise would make the decoder the subject."""
    generator = np.random.default_rng(2)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((224, 224), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def minilm() -> tuple[ModelSpec, MultiTaskNetwork]:
    """MiniLM with three heads."""
    return _text("minilm", dict(HEADS))


def mixed() -> tuple[ModelSpec, MultiTaskNetwork]:
    """The MLP's inputs, a trunk of some weight, three cheap heads, and one as dear as the trunk."""
    inputs = {"features": {"kind": "tensor", "shape": [768]}}
    heads = {**HEADS, "expert": {"kind": "classification", "labels": [f"case {i}" for i in range(32)]}}
    spec = ModelSpec.parse({"name": "mixed", "version": "1", "inputs": inputs, "heads": heads})
    trunk = MLP(768, (2048, 2048, 2048))
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {name: build_head(head, 2048) for name, head in spec.heads.items()}
    widths = (2048, 2048, 2048, 768)
    layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    made["expert"] = nn.Sequential(*layers, nn.Linear(768, 32))
    network = MultiTaskNetwork(trunk, made).eval()
    for module in network.modules():
        if isinstance(module, nn.Linear):  # torch's own start lets signals fade from layer to layer
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return spec, network


def sentences(count: int) -> list[str]:
    """Texts of skewed lengths: half have fewer than eight words, few have forty."""
    generator = np.random.default_rng(3)
    words = "turn on the light in my kitchen and tell me how warm it was there when we left".split()  # noqa: SIM905
    lengths = np.clip(np.exp(generator.normal(2.0, 0.8, count)).astype(int), 2, 40)
    return [" ".join(generator.choice(words, size=length)) for length in lengths]


def _text(name: str, heads: Mapping[str, Any]) -> tuple[ModelSpec, MultiTaskNetwork]:
    text = {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 64, "truncate": True}
    spec = ModelSpec.parse({"name": name, "version": "1", "inputs": {"text": text}, "heads": dict(heads)})
    return spec, _network(spec, TextTrunk.from_directory(pretrained()))


def _network(spec: ModelSpec, trunk: Any) -> MultiTaskNetwork:
    torch.manual_seed(0)
    heads = {name: build_head(head, trunk.out_features) for name, head in spec.heads.items()}
    return MultiTaskNetwork(trunk, heads).eval()


def _minilm_tokenizer() -> Path:
    return pretrained() / "tokenizer.json"


def _one_in_ten(index: int) -> Sequence[str]:
    return (*HEADS, "expert") if index % 10 == 0 else tuple(HEADS)


BINARY = (*BEST, "torchserve", "ray", "pytriton")
JSON = (*BEST, "torchserve", "litserve", "bentoml", "ray")

WORKLOADS: Mapping[str, Workload] = {
    one.name: one
    for one in (
        Workload("mlp", "MLP, 3 heads, 768 floats in binary", "octets", mlp, numbers, 256, contenders=BINARY),
        Workload("mlp-json", "MLP, 3 heads, 768 floats in JSON", "json", mlp, numbers, 256, contenders=JSON),
        Workload("mlp-8rows", "MLP, 3 heads, 8 rows of 768 floats in binary", "octets", mlp, numbers, rows_each=8),
        Workload("mlp-64rows", "MLP, 3 heads, 64 rows of 768 floats in binary", "octets", mlp, numbers, rows_each=64),
        Workload(
            "resnet18",
            "ResNet-18, 4 heads, JPEG of 224 x 224",
            "jpeg",
            hot_path.WORKLOADS["resnet18"].build,
            photographs,
            contenders=("polyhead", "mosec", "torchserve"),
            seconds=8.0,
            load_seconds=16.0,
            slow=True,
            connections=(64, 128),
        ),
        Workload(
            "minilm",
            "MiniLM, 3 heads, texts of skewed lengths",
            "text",
            minilm,
            sentences,
            256,
            contenders=("polyhead", "mosec", "torchserve"),
            seconds=5.0,
            load_seconds=8.0,
            slow=True,
            connections=(64, 128),
            tokenizer=_minilm_tokenizer,
        ),
        Workload(
            "mixed",
            "MLP of 2048, 3 cheap heads, one as dear as the trunk that 10 % of requests want",
            "octets",
            mixed,
            numbers,
            250,
            contenders=("polyhead", "polyhead-all", "mosec"),
            connections=(64, 128),
            wanted=_one_in_ten,
        ),
    )
}
