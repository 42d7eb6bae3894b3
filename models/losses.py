"""One loss per head kind, blind to missing targets.

A missing target is -1 where targets are class indices, NaN where they are numbers. A head whose targets are all missing
in a batch has a loss of zero, with a gradient of zero, and no NaN.
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
    Labelled,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    SpecError,
    TokensHead,
)

__all__ = [
    "MAX_POSITIVE_WEIGHT",
    "MISSING_CLASS",
    "HeadLosses",
    "class_weights",
    "classification_loss",
    "known",
    "leave_one_out",
    "multilabel_loss",
    "prototypical_loss",
    "regression_loss",
    "segmentation_loss",
    "supervised_contrastive_loss",
    "tokens_loss",
]

MISSING_CLASS = -1
# A label that holds once in a thousand rows must not outweigh everything else a network learns.
MAX_POSITIVE_WEIGHT = 100.0
HALF = (torch.float16, torch.bfloat16)


def classification_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy, the mean over rows with a label. `[batch, labels]`, `int64 [batch]`.

    Args:
        weight: per label, `[labels]`; the mean is then the weighted one, as in torch.
        label_smoothing: the share of a target that is spread over all labels (Szegedy et al. 2016).
    """
    losses = functional.cross_entropy(
        logits, target, weight, ignore_index=MISSING_CLASS, reduction="none", label_smoothing=label_smoothing
    )
    is_known = target != MISSING_CLASS
    if weight is None:
        return _mean(losses, is_known)
    return losses.sum() / torch.where(is_known, weight[target], 0.0).sum().clamp(min=torch.finfo(weight.dtype).tiny)


def tokens_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy, the mean over tokens with a label. `[batch, sequence, labels]`, `int64 [batch, sequence]`."""
    return classification_loss(logits.flatten(0, 1), target.flatten(), weight)


def segmentation_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None, dice: float = 0.0) -> Tensor:
    """Cross-entropy, the mean over pixels with a label, and `dice` times the soft Dice loss.

    The Dice loss of a label is `1 - 2 Σpg / (Σp² + Σg²)` over the known pixels of the batch (Milletari, Navab & Ahmadi
    2016, "V-Net"), p the softmax and g the target; its mean is over the labels that occur there.

    Args:
        logits: `[batch, labels, height, width]`.
        target: `int64 [batch, height, width]`.
        weight: of the cross-entropy, per label.
        dice: the weight of the Dice loss.

    Raises:
        ValueError: logits and targets differ in height or width.
    """
    if logits.shape[2:] != target.shape[1:]:
        got, wanted = tuple(logits.shape[2:]), tuple(target.shape[1:])
        raise ValueError(f"logits of {got} pixels for targets of {wanted}: give the decoder size={wanted}")
    pixels, target = logits.movedim(1, -1).flatten(0, -2), target.flatten()
    loss = classification_loss(pixels, target, weight)
    return loss + dice * _soft_dice(pixels, target) if dice else loss


def _soft_dice(pixels: Tensor, target: Tensor) -> Tensor:
    is_known = target != MISSING_CLASS
    chance, target = pixels[is_known].softmax(dim=1), target[is_known]
    truth = functional.one_hot(target, pixels.shape[1]).to(chance.dtype)
    size = truth.sum(dim=0)
    overlap = 2 * (chance * truth).sum(dim=0) / (chance.square().sum(dim=0) + size).clamp(min=1.0)
    return _mean(1 - overlap, size > 0)


def multilabel_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, the mean over known labels. Both `[batch, labels]`; targets 0, 1 or NaN.

    Args:
        weight: of each label's positives, `[labels]` (`pos_weight` in torch).
    """
    is_known = ~torch.isnan(target)
    losses = functional.binary_cross_entropy_with_logits(
        logits, torch.nan_to_num(target), reduction="none", pos_weight=weight
    )
    return _mean(losses, is_known)


def regression_loss(values: Tensor, target: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Huber loss of the error in units of `scale`, the mean over known values. Both `[batch, dim]`; NaN is missing.

    Dividing by the scale (one, or one per value) keeps a head measured in hundreds from drowning one measured in
    hundredths.
    """
    values = values.reshape(target.shape)  # a head of one value may be [batch]: it must not broadcast
    is_known = ~torch.isnan(target)
    error = torch.where(is_known, values - target, torch.zeros_like(values)) / scale
    return _mean(functional.huber_loss(error, torch.zeros_like(error), reduction="none"), is_known)


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


def prototypical_loss(vectors: Tensor, target: Tensor, scale: float = 1.0) -> Tensor:
    """Cross-entropy of each row's class among all in the batch, by its distance to their prototypes.

    Snell, Swersky & Zemel 2017, "Prototypical Networks for Few-shot Learning": a prototype is the mean vector of a
    class, and the logits are `-scale * distance²`. Here every row is a query in turn and the other rows of the batch
    are its support, so a row takes no part in its own class's prototype. A row whose class has no other row is no
    query and adds nothing to the mean; others still keep away from it.

    `[batch, dim]`, `int64 [batch]`.
    """
    is_known = target != MISSING_CLASS
    vectors, target = vectors[is_known], target[is_known]
    if not len(target):
        return vectors.sum()  # 0, and a gradient of 0
    closeness, own, is_query = leave_one_out(vectors, target)
    return _mean(functional.cross_entropy(scale * closeness, own, reduction="none"), is_query)


def leave_one_out(vectors: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How near every row is to each class's prototype, which is the mean of the class's other rows.

    Args:
        vectors: `[rows, dim]`, at least one row.
        classes: `int64 [rows]`, none missing.

    Returns:
        `[rows, classes]`, the squared Euclidean distance, negated, but for a constant per row; each row's own class as
        a column of it; and whether its class has another row, without which that column means nothing.
    """
    present, own = torch.unique(classes, return_inverse=True)
    member = own[:, None] == torch.arange(len(present), device=own.device)
    # Distances stay as they are where everything moves, and are exact near the origin.
    vectors = vectors - vectors.detach().mean(dim=0)
    share = member.to(vectors.dtype)
    count, total = share.sum(dim=0), share.T @ vectors
    prototype = total / count[:, None]
    without = (total[own] - vectors) / (count[own] - 1).clamp(min=1)[:, None]
    # -|z - c|² = 2 z·c - c² - z²: the last term is the row's constant.
    others = 2 * vectors @ prototype.T - prototype.square().sum(dim=1)
    itself = 2 * (vectors * without).sum(dim=1) - without.square().sum(dim=1)
    return torch.where(member, itself[:, None], others), own, count[own] > 1


def _mean(losses: Tensor, is_known: Tensor) -> Tensor:
    """The mean of the known entries, 0 (with a gradient of 0) where there is none."""
    return torch.where(is_known, losses, torch.zeros_like(losses)).sum() / is_known.sum().clamp(min=1)


def known(spec: HeadSpec, target: Tensor) -> Tensor:
    """How many targets of a head are known in a batch, an `int64` scalar: rows, values, tokens or pixels."""
    numbers = isinstance(spec, RegressionHead | MultilabelHead)
    return (~torch.isnan(target) if numbers else target != MISSING_CLASS).sum()


def class_weights(target: Tensor, labels: int) -> Tensor:
    """Weights that let rare labels count as much as frequent ones, from the targets of a training set.

    Of class indices (`int64`, any shape; -1 missing): `known / (occurring labels * count)`, scikit-learn's "balanced",
    whose mean over the known targets is 1. A label that does not occur gets 1.

    Of a multilabel head's numbers (`[rows, labels]`; NaN missing): `negatives / positives` per label, which makes both
    weigh the same, held between 1 / `MAX_POSITIVE_WEIGHT` and `MAX_POSITIVE_WEIGHT`; 1 where either is missing.

    Returns:
        `float32 [labels]`, what the losses take as `weight`.

    Raises:
        SpecError: the targets are of another number of labels.
    """
    if target.is_floating_point():
        if target.ndim != 2 or target.shape[1] != labels:
            raise SpecError(f"class weights of {labels} labels need targets [rows, {labels}], got {list(target.shape)}")
        positives, negatives = (target == 1).sum(dim=0).float(), (target == 0).sum(dim=0).float()
        ratio = (negatives / positives.clamp(min=1)).clamp(1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
        return torch.where((positives > 0) & (negatives > 0), ratio, torch.ones_like(ratio))
    target = target[target != MISSING_CLASS]
    low, high = (int(target.min()), int(target.max())) if len(target) else (0, 0)
    if low < 0 or high >= labels:
        raise SpecError(f"targets lie between {low} and {high}: those of {labels} labels are 0 to {labels - 1}")
    count = torch.bincount(target, minlength=labels).float()
    occurs = count > 0
    return torch.where(occurs, len(target) / (occurs.sum() * count.clamp(min=1)), torch.ones_like(count))


class HeadLosses(nn.Module):
    """Every head's loss by name, unweighted among heads.

    Args:
        heads: the spec's heads by name.
        modules: the network's heads by name; a `Regression`, also inside of another module, brings the scale of its
            targets. May lack heads.
        class_weights: by head name, as the function of that name gives them.
        label_smoothing: of classification heads, 0 to 1.
        dice: the weight of the soft Dice loss in segmentation heads.

    Raises:
        SpecError: class weights are of no head, of one without labels, or not one per label.
    """

    def __init__(
        self,
        heads: Mapping[str, HeadSpec],
        modules: Mapping[str, nn.Module],
        class_weights: Mapping[str, Tensor] | None = None,
        label_smoothing: float = 0.0,
        dice: float = 0.0,
    ) -> None:
        super().__init__()
        self.specs, self.label_smoothing, self.dice = dict(heads), label_smoothing, dice
        # Held, not registered: their parameters are the network's, and their scale is wherever the network is.
        self._regressions = {name: found for name, module in modules.items() if (found := _regression(module))}
        self._places: dict[str, str] = {}
        for index, (name, weight) in enumerate((class_weights or {}).items()):
            self._require_labels(name, weight)
            self._places[name] = f"weight_{index}"  # a head's name need not be an identifier
            self.register_buffer(self._places[name], weight.detach().clone(), persistent=False)

    def _require_labels(self, name: str, weight: Tensor) -> None:
        if name not in self.specs:
            raise SpecError(f"class weights for {name!r}, which is no head (heads: {', '.join(sorted(self.specs))})")
        spec = self.specs[name]
        if not isinstance(spec, Labelled):
            raise SpecError(f"class weights for head {name!r} of kind {spec.kind}, which has no labels")
        if weight.shape != (len(spec.labels),):
            raise SpecError(f"class weights {list(weight.shape)} for head {name!r} of {len(spec.labels)} labels")

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs and targets by head name; the loss of every head that has targets, a scalar each.

        Losses are computed in single precision where the network runs in half, also under autocast.
        """
        losses = {}
        for name, target in targets.items():
            output = outputs[name]
            with torch.autocast(output.device.type, enabled=False):
                losses[name] = self._loss(name, output.float() if output.dtype in HALF else output, target)
        return losses

    def _loss(self, name: str, output: Tensor, target: Tensor) -> Tensor:
        weight = self.get_buffer(self._places[name]) if name in self._places else None
        match self.specs[name]:
            case ClassificationHead():
                return classification_loss(output, target, weight, self.label_smoothing)
            case MultilabelHead():
                return multilabel_loss(output, target, weight)
            case RegressionHead():
                regression = self._regressions.get(name)
                return regression_loss(output, target, 1.0 if regression is None else regression.scale)
            case TokensHead():
                return tokens_loss(output, target, weight)
            case EmbeddingHead():
                return supervised_contrastive_loss(output, target)
            case SegmentationHead():
                return segmentation_loss(output, target, weight, self.dice)
            case OneShotHead() as spec:
                return prototypical_loss(output, target, spec.scale)


def _regression(module: nn.Module) -> Regression | None:
    return next((part for part in module.modules() if isinstance(part, Regression)), None)
