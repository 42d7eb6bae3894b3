"""Sound networks, their bundles, and the ways in which a test breaks a graph after it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from polyhead.export import assemble, parity
from polyhead.export.errors import ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source, random_samples
from polyhead.export.weights import whole
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import base
from tests.unit.serving.wordpiece import VOCABULARY, tokenizer_json

LABELS = ["a", "b", "c"]
KIND = {"kind": "classification", "labels": LABELS}
NUMBERS = {"x": {"kind": "tensor", "shape": [6]}}
TEXT = {"text": {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 24}}
IMAGE = {"image": {"kind": "image", "size": [4, 6], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}}


def spec(inputs: dict[str, Any], **heads: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "sound", "version": "1", "inputs": inputs, "heads": heads})


def source(network: nn.Module, model: ModelSpec, **samples: Any) -> Source:
    texts = {name: value for name, value in model.inputs.items() if isinstance(value, TextInput)}
    tokenizers = {name: Tokenizer(tokenizer_json(), value) for name, value in texts.items()}
    return Source(network, model, samples or random_samples(model, tokenizers=tokenizers), tokenizers=tokenizers)


class Numbers(nn.Module):
    """Two heads of one shape, a number and a vector, on one trunk."""

    spec = spec(
        NUMBERS,
        kind=KIND,
        colour=KIND,
        size={"kind": "regression"},
        vector={"kind": "embedding", "dim": 4, "normalize": True},
    )

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(6, 16)
        self.kind = nn.Linear(16, 3)
        self.colour = nn.Linear(16, 3)
        self.size = nn.Linear(16, 1)
        self.vector = nn.Linear(16, 4)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.trunk(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {name: getattr(self, name)(features) for name in ("kind", "colour", "size", "vector")}


class Words(nn.Module):
    """A head for each text and one for each of its tokens; a row attends to its own tokens alone."""

    spec = spec(TEXT, intent=KIND, slots={"kind": "tokens", "labels": ["O", "B-x", "I-x"]})

    def __init__(self, positions: int = 24) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(len(VOCABULARY), 8)
        self.positions = nn.Embedding(positions, 8)
        self.intent = nn.Linear(8, 3)
        self.slots = nn.Linear(8, 3)

    def mask(self, attention_mask: Tensor) -> Tensor | None:
        return attention_mask[:, None, None].bool()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        tokens = (self.table(input_ids) + self.positions(torch.arange(input_ids.shape[1]))).unsqueeze(1)
        mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens, self.mask(attention_mask)).squeeze(1)
        return {"intent": self.intent(mixed[:, 0]), "slots": self.slots(mixed)}


class Pictures(nn.Module):
    """A head for each picture and one for each pixel."""

    spec = spec(IMAGE, kind=KIND, ground={"kind": "segmentation", "labels": ["grass", "road"]})

    def __init__(self, running: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, track_running_stats=running)
        self.kind = nn.Linear(8, 3)
        self.ground = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.norm(self.convolution(image)))
        return {"kind": self.kind(features.mean((2, 3))), "ground": self.ground(features)}


@dataclass(frozen=True)
class Sound:
    """A bundle that passed the gate, and what it was made of."""

    source: Source
    bundle: Bundle

    @property
    def entry(self) -> Graph:
        """Of the graph that is broken, its weights inside."""
        return self.bundle.manifest.graph("fused-onnx").model_copy(update={"weights": None})

    def model(self) -> ModelProto:
        return whole(self.bundle, self.bundle.manifest.graph("fused-onnx"))

    def check(self, model: ModelProto, entry: Graph | None = None, network: nn.Module | None = None) -> parity.Parity:
        entry = entry or self.entry
        runtime = base.load("onnxruntime", entry, {entry.file: model.SerializeToString()}, "cpu", 1)
        graph = FusedGraph(network or self.source.network, self.source.spec)
        return parity.check(entry, runtime, graph, self.source.batches())

    def refused(self, model: ModelProto, entry: Graph | None = None, network: nn.Module | None = None) -> str:
        with pytest.raises(ParityError) as caught:
            self.check(model, entry, network)
        message = str(caught.value)
        assert "\n" not in message
        return message


def sound(network: nn.Module, folder: Path, apart: bool = False) -> Sound:
    made = source(network, network.spec)
    return Sound(made, assemble.export(made, folder / "bundle", ["onnx"], apart=apart)[0])


# --- graphs ---------------------------------------------------------------------------------------------------------


def maker(model: ModelProto, name: str) -> NodeProto:
    """The node whose result has this name."""
    return next(node for node in model.graph.node if name in node.output)


def weight(model: ModelProto, name: str) -> Array:
    """A copy of the weight whose name ends so."""
    return np.array(numpy_helper.to_array(_initializer(model, name)))


def reweigh(model: ModelProto, name: str, value: Array) -> None:
    tensor = _initializer(model, name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), tensor.name))


def _initializer(model: ModelProto, name: str) -> onnx.TensorProto:
    (found,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith(name))
    return found


def bypass(model: ModelProto, kind: str, position: int = 0) -> None:
    """Let the one node of a kind hand on one of its inputs as it is."""
    (node,) = (node for node in model.graph.node if node.op_type == kind)
    node.CopyFrom(helper.make_node("Identity", [node.input[position]], list(node.output), name=node.name))


def put_behind(model: ModelProto, name: str, kind: str, *constants: Array, **attributes: Any) -> None:
    """A node between the one that makes `name` and those that take it."""
    names = [f"planted_{index}" for index in range(len(constants))]
    model.graph.initializer.extend(numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True))
    for node in model.graph.node:
        node.input[:] = ["planted" if source == name else source for source in node.input]
    place = [name in node.output for node in model.graph.node].index(True) + 1
    model.graph.node.insert(place, helper.make_node(kind, [name, *names], ["planted"], name="planted", **attributes))


# Of numbers: merged_0_weight holds colour, kind, size, vector, one below the other.
COLOUR, KIND_ROWS = slice(0, 3), slice(3, 6)


def swap_outputs(model: ModelProto) -> None:
    """As an exporter does that orders outputs otherwise than it names them."""
    node = maker(model, "kind")
    node.output[:] = [{"kind": "colour", "colour": "kind"}.get(name, name) for name in node.output]


def swap_heads(model: ModelProto) -> None:
    for name in ("merged_0_weight", "merged_0_bias"):
        rows = weight(model, name)
        reweigh(model, name, np.concatenate([rows[KIND_ROWS], rows[COLOUR], rows[6:]]))


def shuffle_labels(model: ModelProto) -> None:
    """As where the labels were sorted again after training."""
    for name in ("merged_0_weight", "merged_0_bias"):
        rows = weight(model, name)
        rows[KIND_ROWS] = rows[KIND_ROWS][[1, 2, 0]]
        reweigh(model, name, rows)


def earlier_trunk(model: ModelProto) -> None:
    """The trunk of an earlier checkpoint, the heads of this one."""
    rows = weight(model, "trunk.weight")
    reweigh(model, "trunk.weight", rows + np.random.default_rng(0).normal(0, 0.01, rows.shape))


def halve_weights(model: ModelProto) -> None:
    for name in ("trunk.weight", "merged_0_weight"):
        reweigh(model, name, weight(model, name).astype(np.float16))


def fix_the_batch(model: ModelProto, rows: int) -> None:
    put_behind(model, "relu", "Reshape", np.array([rows, 16]))


def answer_the_first_row(model: ModelProto) -> None:
    """As an example of one row does, where the exporter takes its 1 for a dimension to broadcast."""
    put_behind(model, "polyhead_packed", "Slice", np.array([0]), np.array([1]), np.array([0]))


def fix_the_length(model: ModelProto) -> None:
    put_behind(model, "embedding", "Slice", np.array([0]), np.array([8]), np.array([1]))


def lose_the_mask(model: ModelProto) -> None:
    """Every token attends to padding too."""
    (node,) = (node for node in model.graph.node if node.op_type == "Cast")
    node.CopyFrom(helper.make_node("Equal", [node.input[0]] * 2, list(node.output), name=node.name))


def keep_padding(model: ModelProto) -> None:
    """A head of tokens says something of padding."""
    node = maker(model, "slots")
    node.CopyFrom(helper.make_node("Identity", [node.input[2]], ["slots"], name=node.name))


def lose_the_normalisation(model: ModelProto) -> None:
    for name in ("images.image.mean", "images.image.std"):
        reweigh(model, name, np.full_like(weight(model, name), float(name.endswith("std"))))


def turn_the_channels(model: ModelProto) -> None:
    reweigh(model, "convolution.weight", weight(model, "convolution.weight")[:, ::-1])
