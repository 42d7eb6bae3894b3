"""A model that tries a page: texts that look like markup, names that are too long, every figure there is."""

from __future__ import annotations

import torch
from torch import nn

from polyhead.export.timing.results import Timing

LONG = "temperature_of_the_room_in_which_the_sensor_stands_at_the_moment"
HEADS = {
    "intent": {
        "kind": "classification",
        "labels": ["<script>alert(1)</script>", '"quo\'ted" & </td>', *(f"label {index}" for index in range(20))],
    },
    "alerts": {"kind": "multilabel", "labels": ["smoke", "<b>fire</b>"], "threshold": [0.5, 0.875]},
    LONG: {"kind": "regression", "unit": "<°C>", "dim": 3, "description": "in <i>the</i> middle"},
    "person": {"kind": "oneshot", "dim": 8, "max_distance": 0.25},
}
SPEC = {
    "name": "wild",
    "version": "1.0-rc.1",
    "description": "Lights & <i>doors</i>",
    "inputs": {"x": {"kind": "tensor", "shape": [6]}},
    "heads": HEADS,
}
METRICS = {"intent": {"accuracy": 0.9375}, LONG: {"mae": 0.8125, "r2": 0.75}}
WIDTHS = {"intent": 22, "alerts": 2, LONG: 3, "person": 8}


class Network(nn.Module):
    """A trunk of 6 x 32 + 32 parameters, and a linear head of 32 x n + n each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(6, 32)
        self.heads = nn.ModuleDict({name: nn.Linear(32, width) for name, width in WIDTHS.items()})

    def forward(self, x):
        features = torch.relu(self.trunk(x))
        return {name: head(features) for name, head in self.heads.items()}


def timing(contender: str, batch: int, seconds: float, graph: str | None = "fused-onnx", **changes: object) -> Timing:
    """One contender's figures at one batch size."""
    found = {
        "contender": contender,
        "graph": graph,
        "runtime": contender.partition(" ")[0],
        "precision": "fp32",
        "device": "cpu",
        "batch": batch,
        "median_seconds": seconds,
        "low_seconds": seconds * 0.9,
        "high_seconds": seconds * 1.1,
        "p95_seconds": seconds * 1.5,
        "rows_per_second": batch / seconds,
        "speed": 2.5,
        "reference": "eager",
        "passes": 100,
    }
    return Timing.model_validate(found | changes)
