"""Networks as others write them, each of a form that some exporter trips over."""

from __future__ import annotations

import torch
from torch import nn

from polyhead.export.assemble import export
from polyhead.export.samples import random_samples
from polyhead.export.source import Source
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine

SPEC = ModelSpec.parse(
    {
        "name": "net",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [6]}},
        "heads": {"a": {"kind": "embedding", "dim": 4}, "b": {"kind": "embedding", "dim": 3}},
    }
)


class Halves(nn.Module):
    """One layer, and each head takes a part of what it returns."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 7)

    def hidden(self, x):
        return torch.relu(self.first(x))

    def forward(self, x):
        a, b = self.last(self.hidden(x)).split([4, 3], 1)
        return {"a": a * 2, "b": b * 3}


class Masked(Halves):
    """With a number that half precision has not."""

    def hidden(self, x):
        return torch.softmax(super().hidden(x).masked_fill(x[:, :1] > 9, -1e9), 1)


class Towers(nn.Module):
    """Heads that share a number, and nothing of a row."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, x):
        scale = self.scale.exp()
        return {"a": self.a(x) * scale, "b": self.b(x) * scale}


class Alike(nn.Module):
    """Two weights whose names differ in a dot."""

    def __init__(self):
        super().__init__()
        self.head_a = nn.Linear(6, 6)
        self.head = nn.ModuleDict({"a": nn.Linear(6, 6)})
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 3)

    def forward(self, x):
        hidden = torch.tanh(self.head["a"](torch.tanh(self.head_a(x))))
        return {"a": self.a(hidden), "b": self.b(hidden)}


def source(network: type[nn.Module]) -> Source:
    torch.manual_seed(0)
    return Source(network().eval(), SPEC, random_samples(SPEC))


def test_parts_of_one_result_are_features_of_the_trunk(tmp_path):
    bundle, _ = export(source(Halves), tmp_path / "net", ("onnx",))
    manifest = Bundle.open(bundle.folder).manifest
    assert len(manifest.graph("trunk-onnx").outputs) == 2
    assert manifest.parts["trunk"].parameters == 6 * 8 + 8 + 8 * 7 + 7
    assert all(manifest.parts[f"heads/{head}"].parameters == 0 for head in "ab")
    assert max(Engine.split(bundle, "cpu").replay_golden().values()) < 1e-5


def test_towers_that_share_only_a_number_have_no_trunk(tmp_path):
    bundle, _ = export(source(Towers), tmp_path / "net", ("onnx",))
    assert bundle.manifest.unsplit == "its heads share no result that depends on a row"
    assert bundle.manifest.graph_ids == ("fused-onnx",)


def test_a_mask_of_minus_a_thousand_million_is_exported_in_half_precision(tmp_path):
    _, proofs = export(source(Masked), tmp_path / "net", ("torchscript",), precisions=["fp16"])
    assert [proof.graph for proof in proofs] == ["fused-torchscript", "fused-torchscript-fp16"]


def test_weights_of_like_names_stay_apart_in_half_precision(tmp_path):
    _, proofs = export(source(Alike), tmp_path / "net", ("torchscript",), precisions=["bf16"])
    assert proofs[1].largest < 2e-2
