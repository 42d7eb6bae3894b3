"""One module per head kind: features `[batch, features]` to that head's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    RegressionHead,
    SpecError,
)

__all__ = ["Embedding", "Logits", "Regression", "build_head"]


class Logits(nn.Module):
    """Unnormalised scores per label, for classification and multilabel heads."""

    def __init__(self, features: int, labels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, labels)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to logits `[batch, labels]`."""
        logits: Tensor = self.linear(features)
        return logits


class Regression(nn.Module):
    """Numbers in the unit of the spec. The target's scaling lives in the graph, so no client has to undo it.

    Args:
        location, scale: the mean and standard deviation of the training targets, in the unit of the spec.
        hidden: width of a hidden layer, 0 for a linear head.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, features: int, dim: int = 1, location: float = 0.0, scale: float = 1.0, hidden: int = 0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}: give the standard deviation of the targets")
        self.layers = nn.Sequential(
            *((nn.Linear(features, hidden), nn.ReLU()) if hidden else ()), nn.Linear(hidden or features, dim)
        )
        self.register_buffer("location", torch.tensor([location]))
        self.register_buffer("scale", torch.tensor([scale]))

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to values `[batch, dim]`."""
        values: Tensor = self.layers(features) * self.scale + self.location
        return values


class Embedding(nn.Module):
    """A projection, scaled to length 1 where the spec says so."""

    def __init__(self, features: int, dim: int, normalize: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(features, dim)
        self.normalize = normalize

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to vectors `[batch, dim]`."""
        vectors: Tensor = self.linear(features)
        return functional.normalize(vectors, dim=1) if self.normalize else vectors


def build_head(spec: HeadSpec, features: int) -> nn.Module:
    """The default module of a head's kind.

    Raises:
        SpecError: this kind has no module of its own.
    """
    match spec:
        case ClassificationHead() | MultilabelHead():
            return Logits(features, len(spec.labels))
        case RegressionHead():
            return Regression(features, spec.dim)
        case EmbeddingHead():
            return Embedding(features, spec.dim, spec.normalize)
        case _:
            raise SpecError(
                f"no head module for kind {spec.kind!r} (there are: classification, multilabel, regression, embedding)"
            )
