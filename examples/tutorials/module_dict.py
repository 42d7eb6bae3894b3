"""Multi-task learning as most tutorials begin: one shared layer, a ModuleDict of linear heads, a dict comes back."""

import torch
from torch import nn


class MultiTaskModel(nn.Module):
    def __init__(self, in_features, hidden, tasks):
        super().__init__()
        self.shared = nn.Linear(in_features, hidden)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, outputs) for name, outputs in tasks.items()})

    def forward(self, x):
        features = torch.relu(self.shared(x))
        return {name: head(features) for name, head in self.heads.items()}


def build():
    return MultiTaskModel(in_features=20, hidden=64, tasks={"topic": 4, "sentiment": 2, "score": 1})
