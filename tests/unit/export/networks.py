"""Small networks that the tests of the export capture, and rows for them.

A network is captured once for all tests: no pass may change what it is given, which tests hold each of them to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from polyhead.export.graphs import FusedGraph
from polyhead.export.program import capture
from polyhead.models.spec import ModelSpec

KIND = {"kind": "classification", "labels": ["a", "b", "c"]}
NUMBER = {"kind": "regression"}
TEXT = {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 24}


def spec(inputs: Mapping[str, Any], heads: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "tiny", "version": "1", "inputs": dict(inputs), "heads": dict(heads)})


def numbers(heads: Mapping[str, Any], width: int = 6) -> ModelSpec:
    """A spec of one input `x` of so many numbers."""
    return spec({"x": {"kind": "tensor", "shape": [width]}}, heads)


@dataclass(frozen=True)
class Captured:
    """A network's eager graph, and the program captured of it."""

    graph: FusedGraph
    program: fx.GraphModule

    @property
    def heads(self) -> tuple[str, ...]:
        return self.graph.spec.head_names

    def rows(self, count: int, seed: int = 0, **lengths: int) -> list[Tensor]:
        """Rows of every array; a text's are of differing lengths. Free dimensions are five long."""
        return rows(self.graph, count, seed, **lengths)

    def eager(self, given: list[Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs: tuple[Tensor, ...] = self.graph(*given)
        return outputs

    def call(self, module: nn.Module, given: list[Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            outputs: tuple[Tensor, ...] = module(*given)
        return outputs


def rows(graph: FusedGraph, count: int, seed: int = 0, **lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for array in graph.arrays.values():
        shape = (count, *(lengths.get(d, 5) if isinstance(d, str) else d for d in array.shape))
        match array.role, array.dtype:
            case "mask", _:
                own = torch.randint(1, shape[1] + 1, (count, 1), generator=generator)
                made.append((torch.arange(shape[1]) < own).long())
            case _, "float32":
                made.append(torch.randn(shape, generator=generator))
            case _, dtype:
                high = 2 if dtype == "bool" else 10
                made.append(torch.randint(0, high, shape, generator=generator).to(getattr(torch, dtype)))
    return made


def captured(network: nn.Module, model: ModelSpec) -> Captured:
    graph = FusedGraph(network, model)
    return Captured(graph, capture(graph, rows(graph, 2)))


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


class Mlp(nn.Module):
    """A trunk of two layers; `kind` and `tags` are linear, `size` has a hidden layer, `echo` answers from `kind`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True))
        self.kind = nn.Linear(16, 3)
        self.tags = nn.Linear(16, 4, bias=False)
        self.size = nn.Sequential(nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Linear(8, 1))
        self.echo = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        kind = self.kind(features)
        return {"kind": kind, "tags": self.tags(features), "size": self.size(features), "echo": self.echo(kind)}


MLP_HEADS = {
    "kind": KIND,
    "tags": {"kind": "multilabel", "labels": ["a", "b", "c", "d"]},
    "size": NUMBER,
    "echo": {"kind": "regression", "dim": 2},
}


@cache
def mlp() -> Captured:
    return captured(seeded(Mlp), numbers(MLP_HEADS))


class Picture(nn.Module):
    """Convolutions with batch normalisation whose statistics are no defaults; a label per pixel, and one per row."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.ground = nn.Conv2d(8, 2, 1)
        self.wet = nn.Linear(8, 3)
        for norm in (self.first[1], self.second[1]):
            nn.init.normal_(norm.weight, 1.0, 0.2)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.second(self.first(image))
        return {"ground": self.ground(features), "wet": self.wet(features.mean((2, 3)))}


@cache
def picture() -> Captured:
    heads = {"ground": {"kind": "segmentation", "labels": ["a", "b"]}, "wet": KIND}
    return captured(seeded(Picture), spec({"image": {"kind": "image", "size": [6, 8]}}, heads))


class Reader(nn.Module):
    """Tokens through a layer with attention to all valid ones; labels per token, one per row, and a pooled vector."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.mix = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.slots = nn.Linear(16, 3)
        self.part = nn.Linear(16, 2)
        self.intent = nn.Linear(16, 3)
        self.query = nn.Parameter(torch.randn(16))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        tokens = self.norm(torch.nn.functional.gelu(self.mix(self.table(input_ids))))
        scores = (tokens @ self.query).masked_fill(attention_mask == 0, -1e4).softmax(1)
        valid = attention_mask.unsqueeze(2).to(tokens.dtype)
        mean = (tokens * valid).sum(1) / valid.sum(1)
        return {
            "slots": self.slots(tokens),
            "part": self.part(tokens),
            "intent": self.intent((tokens * scores.unsqueeze(2)).sum(1)),
            "vector": mean,
        }


READER_HEADS = {
    "slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
    "part": {"kind": "tokens", "labels": ["a", "b"]},
    "intent": KIND,
    "vector": {"kind": "embedding", "dim": 16},
}


@cache
def reader() -> Captured:
    return captured(seeded(Reader), spec({"text": TEXT}, READER_HEADS))
