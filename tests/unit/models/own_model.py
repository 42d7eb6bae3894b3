"""A model of a user's own, in a file of its own: what `polyhead train path/to/file.py:MODEL` trains in tests."""

import time

import numpy as np
import torch

from polyhead.models.data import Rows, Split
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.mlp import MLP

torch.set_num_threads(1)

SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1.0",
        "inputs": {"x": {"kind": "tensor", "shape": [4]}},
        "heads": {
            "sign": {"kind": "classification", "labels": ["minus", "plus"]},
            "far": {"kind": "regression", "unit": "m"},
        },
    }
)


def network():
    trunk = MLP(4, (512, 512))  # large enough that writing a checkpoint takes a while
    trunk.layers.append(torch.nn.Dropout(0.2))
    return MultiTaskNetwork(trunk, {name: build_head(head, 512) for name, head in SPEC.heads.items()})


def rows(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return Rows({"x": x}, {"sign": (x[:, 0] > 0).astype(np.int64), "far": x.sum(axis=1, keepdims=True)})


def noise(inputs, targets, generator):
    time.sleep(0.01)  # 0.1 s an epoch, so that there is time to be killed in
    x = inputs["x"]
    return {"x": x + 0.1 * torch.randn(x.shape, generator=generator)}, targets


MODEL = ReferenceModel(
    spec=SPEC,
    recipe=Recipe(max_epochs=30, batch_size=16, gradients="pcgrad", patience=30),
    split=lambda seed: Split(rows(128, seed), rows(64, seed + 1), rows(64, seed + 2)),
    build=lambda _rows: network(),
    factory="toy.py:network",
    augment=noise,
)
