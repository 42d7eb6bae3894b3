"""One module per head kind, from a trunk's features to that head's output.

A head takes the pooled features `[batch, features]` of a row, unless its class attribute `feature` names others; see
`MultiTaskNetwork`. The decoder of segmentation heads has a module of its own, `polyhead.models.decoders`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.models.network import POOLED
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SpecError,
    TokensHead,
)

__all__ = ["Attentive", "Embedding", "Logits", "OneShot", "Regression", "TokenLogits", "build_head"]

# The score of padding before the softmax: exp of it is 0, and half precision can still hold it.
PADDING_SCORE = -1e4


def _hidden(features: int, width: int) -> tuple[nn.Module, ...]:
    """A hidden layer of a width, none where it is 0."""
    return (nn.Linear(features, width), nn.ReLU()) if width else ()


class Logits(nn.Module):
    """Unnormalised scores per label, for classification and multilabel heads.

    Args:
        features: width of the features.
        labels: how many.
        hidden: width of a hidden layer with ReLU, 0 for a linear head.
        dropout: chance that a value before the last layer is dropped while training.
    """

    feature = POOLED

    def __init__(self, features: int, labels: int, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*_hidden(features, hidden))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden or features, labels)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to logits `[batch, labels]`."""
        logits: Tensor = self.linear(self.dropout(self.hidden(features)))
        return logits


class TokenLogits(Logits):
    """Unnormalised scores per token and label: the same layers at every token."""

    feature = "tokens"

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, sequence, features]` to logits `[batch, sequence, labels]`, at padding of no meaning."""
        return super().forward(features)


class Regression(nn.Module):
    """Numbers in the unit of the spec. The target's scaling lives in the graph, so no client has to undo it.

    Args:
        features: width of the features.
        dim: values per row.
        location, scale: the mean and standard deviation of the training targets, in the unit of the spec; one for all
            values of a row, or one each.
        hidden: width of a hidden layer, 0 for a linear head.

    Raises:
        ValueError: a scale is not above 0, or there are neither one nor `dim` of them.
    """

    feature = POOLED
    location: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        dim: int = 1,
        location: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_hidden(features, hidden), nn.Linear(hidden or features, dim))
        self.register_buffer("location", _per_value("location", location, dim))
        self.register_buffer("scale", _per_value("scale", scale, dim))
        if not (self.scale > 0).all():
            raise ValueError(f"scale must be above 0, got {scale}: give the standard deviation of the targets")

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to values `[batch, dim]`."""
        values: Tensor = self.layers(features) * self.scale + self.location
        return values


def _per_value(name: str, given: float | Sequence[float], dim: int) -> Tensor:
    values = [float(value) for value in given] if isinstance(given, Sequence) else [float(given)]
    if len(values) not in (1, dim):
        raise ValueError(f"{name} has {len(values)} values for a regression of {dim}: give one, or {dim}")
    return torch.tensor(values)


class Embedding(nn.Module):
    """A vector, scaled to length 1 where the spec says so.

    Args:
        features: width of the features.
        dim: of the vector.
        normalize: scale to length 1.
        projection: a linear layer makes the vector; without one the features themselves are it, as in the sentence
            embedding of a pretrained trunk.

    Raises:
        ValueError: without a projection, the features are of another width than the vector.
    """

    feature = POOLED

    def __init__(self, features: int, dim: int, normalize: bool, projection: bool = True) -> None:
        super().__init__()
        if not projection and features != dim:
            raise ValueError(
                f"an embedding of dim {dim} from {features} features: project them, or set dim: {features}"
            )
        self.linear = nn.Linear(features, dim) if projection else nn.Identity()
        self.normalize = normalize

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to vectors `[batch, dim]`."""
        vectors: Tensor = self.linear(features)
        return functional.normalize(vectors, dim=1) if self.normalize else vectors


class OneShot(nn.Module):
    """The metric embedding of a oneshot head: rows of one class lie near each other, also of classes never trained on.

    Snell, Swersky & Zemel 2017, "Prototypical Networks for Few-shot Learning".

    Args:
        features: width of the features.
        dim: of the vector.
        normalize: scale to length 1.
        hidden: width of a hidden layer, 0 for a linear projection.
    """

    feature = POOLED

    def __init__(self, features: int, dim: int, normalize: bool, hidden: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_hidden(features, hidden), nn.Linear(hidden or features, dim))
        self.normalize = normalize

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to vectors `[batch, dim]`."""
        vectors: Tensor = self.layers(features)
        return functional.normalize(vectors, dim=1) if self.normalize else vectors


class Attentive(nn.Module):
    """A head of the whole row that pools the tokens itself, so that it can look at the few that matter to it.

    A learned query weighs the tokens, softmax over the valid ones (the pooling of Safari, India & Hernando 2020,
    "Self-attention encoding and pooling for speaker recognition"). It begins as their plain mean.

    Args:
        features: width of the tokens' features.
        head: takes the pooled features `[batch, features]`.

    Raises:
        ValueError: the head takes other features than pooled ones.
    """

    feature = ("tokens", "mask")

    def __init__(self, features: int, head: nn.Module) -> None:
        super().__init__()
        wanted = getattr(head, "feature", POOLED)
        if wanted != POOLED:
            raise ValueError(f"{type(head).__name__} takes feature {wanted!r}: give a head of pooled features")
        self.query = nn.Parameter(torch.zeros(features))
        self.head = head

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[batch, sequence, features]` and `mask` `int64 [batch, sequence]` (1 valid) to the head's output.

        A row of no valid token pools to zeros.
        """
        valid = mask != 0
        scores = (tokens @ self.query).masked_fill(~valid, PADDING_SCORE)
        weights = scores.softmax(dim=1) * valid.to(tokens.dtype)
        pooled = (weights.unsqueeze(1) @ tokens).squeeze(1)
        output: Tensor = self.head(pooled)
        return output


def build_head(spec: HeadSpec, features: int) -> nn.Module:
    """The default module of a head's kind, on features of a width.

    Raises:
        SpecError: a segmentation head, which is built on a trunk's maps.
    """
    match spec:
        case ClassificationHead() | MultilabelHead():
            return Logits(features, len(spec.labels))
        case RegressionHead():
            return Regression(features, spec.dim)
        case TokensHead():
            return TokenLogits(features, len(spec.labels))
        case EmbeddingHead():
            return Embedding(features, spec.dim, spec.normalize)
        case OneShotHead():
            return OneShot(features, spec.dim, spec.normalize)
        case _:
            raise SpecError(
                f"a head of kind {spec.kind} is built on maps, not on {features} features: make it with "
                f"polyhead.models.decoders.Segmentation(channels, labels={len(spec.labels)}, size=(height, width))"
            )
