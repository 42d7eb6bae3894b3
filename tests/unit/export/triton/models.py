"""Small networks of every kind of input and head that a Triton repository may hold, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polyhead.export import assemble
from polyhead.export.source import Source
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.prototypes import Prototypes
from tests.unit.serving.wordpiece import VOCABULARY, WORDS, tokenizer_json

ROWS = 16

TEXT: dict[str, Any] = {
    "name": "texts",
    "version": "2.1-rc",
    "inputs": {"text": {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 24}},
    "heads": {
        "intent": {"kind": "classification", "labels": ['say "hi"', "back\\slash", "it's 灯"]},
        "slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
        "sentence": {"kind": "embedding", "dim": 8, "normalize": True},
    },
}
TWO: dict[str, Any] = {
    "name": "two",
    "version": "1",
    "inputs": {
        "x": {"kind": "tensor", "shape": [6]},
        "scale": {"kind": "tensor", "shape": []},
        "flags": {"kind": "tensor", "dtype": "bool", "shape": [3]},
    },
    "heads": {
        "alerts": {"kind": "multilabel", "labels": ["smoke", "intrusion"], "threshold": [0.25, 0.75]},
        "heat": {"kind": "regression", "unit": "°C", "description": 'it\'s "warm" \\ cold'},
        "person": {"kind": "oneshot", "dim": 4},
    },
}
FIELD: dict[str, Any] = {
    "name": "field",
    "version": "1",
    "inputs": {"image": {"kind": "tensor", "shape": [3, "height", "width"]}},
    "heads": {
        "ground": {"kind": "segmentation", "labels": ["grass", "road"]},
        "weather": {"kind": "classification", "labels": ["sun", "rain"]},
    },
}


class Texts(nn.Module):
    """Each token embedded, each text the mean of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(len(VOCABULARY), 8)
        self.intent = nn.Linear(8, 3)
        self.slots = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        tokens = self.table(input_ids)
        valid = attention_mask.unsqueeze(2).to(tokens.dtype)
        pooled = (tokens * valid).sum(1) / valid.sum(1).clamp(min=1)
        return {"intent": self.intent(pooled), "slots": self.slots(tokens), "sentence": pooled}


class Two(nn.Module):
    """Three inputs: numbers, one number, and truth values. Its first layer is large enough to be stored apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(9, 64)
        self.alerts = nn.Linear(64, 2)
        self.heat = nn.Linear(64, 1)
        self.person = nn.Linear(64, 4)

    def forward(self, x: Tensor, scale: Tensor, flags: Tensor) -> dict[str, Tensor]:
        shared = torch.cat([x * scale.unsqueeze(1), flags.to(x.dtype)], 1)
        features = torch.relu(self.trunk(shared))
        return {"alerts": self.alerts(features), "heat": self.heat(features), "person": self.person(features)}


class Field(nn.Module):
    """Pictures of any size: a label per pixel, and one for the whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 4, 3, padding=1)
        self.ground = nn.Conv2d(4, 2, 1)
        self.weather = nn.Linear(4, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(image))
        return {"ground": self.ground(features), "weather": self.weather(features.mean((2, 3)))}


def text_bundle(out: Path) -> Bundle:
    """Texts of one to nine words, in three precisions."""
    spec = ModelSpec.parse(TEXT)
    value = spec.inputs["text"]
    assert isinstance(value, TextInput)
    samples = [" ".join(WORDS[i % len(WORDS)] for i in range(row, row + 1 + row % 9)) for row in range(ROWS)]
    source = Source(Texts(), spec, {"text": samples}, tokenizers={"text": Tokenizer(tokenizer_json(), value)})
    assemble.export(source, out, ["onnx"], precisions=["fp16", "int8"], apart=False)
    return Bundle.open(out)


def field_bundle(out: Path) -> Bundle:
    """All golden rows of one size."""
    samples = {"image": np.random.default_rng(0).random((ROWS, 3, 8, 6)).astype(np.float32)}
    assemble.export(Source(Field(), ModelSpec.parse(FIELD), samples), out, ["onnx"], apart=False)
    return Bundle.open(out)


def two_input_bundle(out: Path) -> Bundle:
    """With one class enrolled."""
    random = np.random.default_rng(0)
    samples = {
        "x": random.normal(size=(ROWS, 6)).astype(np.float32),
        "scale": random.uniform(0.5, 2, size=ROWS).astype(np.float32),
        "flags": random.random((ROWS, 3)) < 0.5,
    }
    ada = Prototypes(("ada",), np.eye(1, 4, dtype=np.float32), np.array([3], np.int64))
    assemble.export(
        Source(Two(), ModelSpec.parse(TWO), samples, prototypes={"person": ada}), out, ["onnx"], apart=False
    )
    return Bundle.open(out)
