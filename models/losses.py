"""One loss per head kind, blind to missing targets, and their weighted sum.

A missing target is -1 where targets are class indices, NaN where they are numbers. A head whose targets are all missing
in a batch contributes a loss of zero, with a gradient of zero, and no NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.models.heads import Regression
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    RegressionHead,
    SpecError,
)

__all__ = [
    "MISSING_CLASS",
    "MultiTaskLoss",
    "classification_loss",
    "multilabel_loss",
    "regression_loss",
    "supervised_contrastive_loss",
]

MISSING_CLASS = -1


def classification_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, the mean over rows with a label. `[batch, labels]`, `int64 [batch]`."""
    known = target != MISSING_CLASS
    losses = functional.cross_entropy(logits, target, ignore_index=MISSING_CLASS, reduction="none")
    return _mean(losses, known)


def multilabel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over known labels. Both `[batch, labels]`; targets 0, 1 or NaN."""
    known = ~torch.isnan(target)
    losses = functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(target), reduction="none")
    return _mean(losses, known)


def regression_loss(values: Tensor, target: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Huber loss of the error in units of `scale`, the mean over known values. Both `[batch, dim]`; NaN is missing.

    Dividing by the scale keeps a head measured in hundreds from drowning one measured in hundredths.
    """
    values = values.reshape(target.shape)  # a head of one value may be [batch]: it must not broadcast
    known = ~torch.isnan(target)
    error = torch.where(known, values - target, torch.zeros_like(values)) / scale
    return _mean(functional.huber_loss(error, torch.zeros_like(error), reduction="none"), known)


def supervised_contrastive_loss(vectors: Tensor, target: Tensor, temperature: float = 0.1) -> Tensor:
    """Pull vectors of one class together, push others apart (Khosla et al. 2020, "Supervised Contrastive Learning").

    `[batch, dim]`, `int64 [batch]`. Rows without a class, and classes with one row in the batch, add nothing.
    """
    vectors = functional.normalize(vectors[target != MISSING_CLASS], dim=1)
    target = target[target != MISSING_CLASS]
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    similarity = (vectors @ vectors.T / temperature).masked_fill(itself, -1e9)
    positive = (target[:, None] == target[None, :]) & ~itself
    log_probability = similarity - torch.logsumexp(similarity, dim=1, keepdim=True) if len(target) else similarity
    per_row = -(log_probability * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return _mean(per_row, positive.any(dim=1))


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    """The mean of the known entries, 0 (with a gradient of 0) where there is none."""
    return torch.where(known, losses, torch.zeros_like(losses)).sum() / known.sum().clamp(min=1)


class MultiTaskLoss(nn.Module):
    """The weighted sum of every head's loss.

    Args:
        heads: the spec's heads by name.
        modules: the network's heads by name; a `Regression` brings the scale of its targets.
        weights: by head name; 1 where a head is not named.
    """

    def __init__(
        self, heads: Mapping[str, HeadSpec], modules: Mapping[str, nn.Module], weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights) - set(heads))
        if unknown:
            raise SpecError(f"loss weight for {unknown[0]!r}, which is no head (heads: {', '.join(sorted(heads))})")
        self.specs = dict(heads)
        self.weights = {name: float(weights.get(name, 1.0)) for name in heads}
        self.scales = {
            name: module.scale for name, module in modules.items() if isinstance(module, Regression)
        }  # fixed buffers, set before training

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs and targets by head name. Returns the weighted sum, and each head's loss unweighted."""
        if not targets:
            raise SpecError("the data has targets for none of the heads: there is nothing to learn")
        losses = {name: self._loss(name, outputs[name], targets[name]) for name in targets}
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        return total, losses

    def _loss(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        match self.specs[name]:
            case ClassificationHead():
                return classification_loss(output, target)
            case MultilabelHead():
                return multilabel_loss(output, target)
            case RegressionHead():
                scale = self.scales.get(name)
                return regression_loss(output, target, 1.0 if scale is None else scale.to(output.device))
            case EmbeddingHead():
                return supervised_contrastive_loss(output, target)
            case other:
                raise SpecError(f"head {name!r}: no loss for kind {other.kind!r}")
