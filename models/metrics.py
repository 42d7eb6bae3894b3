"""Validation metrics per head kind, on torchmetrics; missing targets are left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection, R2Score
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MultilabelF1Score

from polyhead.models.losses import MISSING_CLASS
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    RegressionHead,
    SpecError,
)

__all__ = ["NearestNeighbourAccuracy", "computed", "head_metrics", "update"]


class NearestNeighbourAccuracy(Metric):
    """How often a vector's nearest other vector (by cosine) has the same class: leave-one-out, 1-NN."""

    full_state_update = False
    higher_is_better = True
    vectors: list[Tensor]
    classes: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("vectors", default=[], dist_reduce_fx="cat")
        self.add_state("classes", default=[], dist_reduce_fx="cat")

    def update(self, vectors: Tensor, classes: Tensor) -> None:
        """Add vectors `[batch, dim]` with their classes `[batch]`."""
        self.vectors.append(torch.nn.functional.normalize(vectors, dim=1))
        self.classes.append(classes)

    def compute(self) -> Tensor:
        """The share of rows whose nearest neighbour has their class."""
        vectors, classes = torch.cat(list(self.vectors)), torch.cat(list(self.classes))
        if len(classes) < 2:
            return torch.tensor(0.0)  # a row is not its own neighbour
        similarity = vectors @ vectors.T
        similarity.fill_diagonal_(-2.0)
        return (classes[similarity.argmax(dim=1)] == classes).float().mean()


def head_metrics(spec: HeadSpec) -> MetricCollection:
    """The metrics of a head's kind."""
    metrics: dict[str, Metric | MetricCollection]
    match spec:
        case ClassificationHead():
            metrics = {"accuracy": MulticlassAccuracy(len(spec.labels), average="micro", ignore_index=MISSING_CLASS)}
        case MultilabelHead():
            several = len(spec.labels) > 1
            f1 = MultilabelF1Score(len(spec.labels), ignore_index=MISSING_CLASS) if several else BinaryF1Score()
            metrics = {"f1": f1}
        case RegressionHead():
            metrics = {"mae": MeanAbsoluteError(), "r2": R2Score()}
        case EmbeddingHead():
            metrics = {"nearest_neighbour_accuracy": NearestNeighbourAccuracy()}
        case other:
            raise SpecError(f"no metrics for heads of kind {other.kind!r}")
    return MetricCollection(metrics)


def update(spec: HeadSpec, metrics: MetricCollection, output: Tensor, target: Tensor) -> None:
    """Add one batch of a head's outputs and targets."""
    output, target = output.detach(), target.detach()
    match spec:
        case RegressionHead():
            known = ~torch.isnan(target).any(dim=1)
            output, target = output[known], target[known]
            if spec.dim == 1:
                output, target = output.flatten(), target.flatten()
        case MultilabelHead():
            known = ~torch.isnan(target)
            output = (output.sigmoid() >= torch.tensor(spec.threshold, device=output.device)).long()
            target = torch.where(known, target, torch.full_like(target, MISSING_CLASS)).long()
            if len(spec.labels) == 1:
                output, target = output[known], target[known]
            elif not known.any():
                return
        case _:
            known = target != MISSING_CLASS
            output, target = output[known], target[known]
    if len(target):
        metrics.update(output, target)


def computed(metrics: MetricCollection) -> dict[str, float]:
    """The metrics' values; without those for which too few targets were known."""
    enough = {
        name: metric
        for name, metric in metrics.items(copy_state=False)
        if metric.update_called and not (isinstance(metric, R2Score) and metric.total < 2)
    }
    return {name: float(metric.compute()) for name, metric in enough.items()}
