"""Validation metrics per head kind, on torchmetrics; missing targets are left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelF1Score,
)

from polyhead.models.bio import spans
from polyhead.models.losses import MISSING_CLASS, leave_one_out
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    TokensHead,
)

__all__ = [
    "ExactMatch",
    "MeanAbsoluteError",
    "NearestNeighbourAccuracy",
    "NearestPrototypeAccuracy",
    "R2Score",
    "SpanF1",
    "TokenAccuracy",
    "computed",
    "head_metrics",
    "update",
]


class _Collected(Metric):
    """A metric of everything seen: outputs and targets are kept. Metrics of one head share what they keep."""

    full_state_update = False
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("outputs", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add rows: outputs `[rows, dim]` with their targets."""
        self.outputs.append(outputs)
        self.targets.append(targets)

    def everything(self) -> tuple[Tensor, Tensor]:
        """All outputs and targets seen."""
        return torch.cat(list(self.outputs)), torch.cat(list(self.targets))


class MeanAbsoluteError(_Collected):
    """The mean absolute error over known values, in their unit. Both `[rows, dim]`; NaN targets are missing."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """A scalar."""
        outputs, targets = self.everything()
        return (outputs - targets)[~torch.isnan(targets)].abs().mean()

    @property
    def enough(self) -> bool:
        """Whether a value is known."""
        return bool((~torch.isnan(self.everything()[1])).any())


class R2Score(_Collected):
    """The share of variance explained, the mean over the values of a row. Both `[rows, dim]`; NaN targets are missing.

    A value known in fewer than two rows is left out. One that never varies counts 1 where it is met exactly, else 0.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """A scalar."""
        outputs, targets = self.everything()
        known = ~torch.isnan(targets)
        scores = [
            self._score(outputs[known[:, column], column], targets[known[:, column], column])
            for column in range(targets.shape[1])
            if known[:, column].sum() > 1
        ]
        return torch.stack(scores).mean()

    @staticmethod
    def _score(output: Tensor, target: Tensor) -> Tensor:
        residual, total = (output - target).square().sum(), (target - target.mean()).square().sum()
        return 1 - residual / total if total > 0 else (residual == 0).to(target.dtype)

    @property
    def enough(self) -> bool:
        """Whether a value is known in two rows."""
        return bool(((~torch.isnan(self.everything()[1])).sum(dim=0) > 1).any())


class NearestNeighbourAccuracy(_Collected):
    """How often a vector's nearest other vector (by cosine) has the same class: leave-one-out, 1-NN."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """The share of rows whose nearest neighbour has their class."""
        vectors, classes = self.everything()
        if len(classes) < 2:
            return torch.tensor(0.0)  # a row is not its own neighbour
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        similarity = vectors @ vectors.T
        similarity.fill_diagonal_(-2.0)
        return (classes[similarity.argmax(dim=1)] == classes).float().mean()


class NearestPrototypeAccuracy(_Collected):
    """How often the nearest prototype (by Euclidean distance) is that of a vector's own class.

    A prototype is the mean vector of all rows of a class that were seen; for a row of that class, of its other rows.
    Rows whose class has no other row are not counted.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """The share of rows nearest to their own class."""
        closeness, own, counted = leave_one_out(*self.everything())
        return (closeness.argmax(dim=1) == own)[counted].float().mean()

    @property
    def enough(self) -> bool:
        """Whether a class has two rows."""
        return bool((torch.unique(self.everything()[1], return_counts=True)[1] > 1).any())


class ExactMatch(Metric):
    """How often every label of a row is right, of rows with every label known. Both `[rows, labels]`, -1 missing."""

    full_state_update = False
    higher_is_better = True
    exact: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("exact", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("rows", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add rows of 0 and 1."""
        whole = (target != MISSING_CLASS).all(dim=1)
        self.exact += (whole & (predicted == target).all(dim=1)).sum()
        self.rows += whole.sum()

    def compute(self) -> Tensor:
        """A scalar."""
        return self.exact / self.rows

    @property
    def enough(self) -> bool:
        """Whether a row is known as a whole."""
        return bool(self.rows > 0)


class TokenAccuracy(Metric):
    """How often the label of a token is right. Labels `int64 [rows, sequence]`, -1 where a token has none."""

    full_state_update = False
    higher_is_better = True
    right: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("tokens", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add rows."""
        known = target != MISSING_CLASS
        self.right += (known & (predicted == target)).sum()
        self.tokens += known.sum()

    def compute(self) -> Tensor:
        """A scalar."""
        return self.right / self.tokens


class SpanF1(Metric):
    """F1 over labelled spans, micro: a span is right where its words and its type are, as CoNLL's evaluation has it.

    Labels `int64 [rows, sequence]`, -1 where a token has none: those that have one are a row's words, in order. Spans
    are read off by `polyhead.models.bio.spans`.
    """

    full_state_update = False
    higher_is_better = True
    matched: Tensor
    found: Tensor
    true: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        for state in ("matched", "found", "true"):
            self.add_state(state, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Add rows."""
        matched = found = true = 0
        for guess, truth in zip(predicted.tolist(), target.tolist(), strict=True):
            words = [place for place, label in enumerate(truth) if label != MISSING_CLASS]
            given = set(spans([guess[place] for place in words], self.names))
            wanted = set(spans([truth[place] for place in words], self.names))
            matched, found, true = matched + len(given & wanted), found + len(given), true + len(wanted)
        self.matched += matched
        self.found += found
        self.true += true

    def compute(self) -> Tensor:
        """A scalar."""
        return 2 * self.matched / (self.found + self.true)

    @property
    def enough(self) -> bool:
        """Whether there is a span, found or true."""
        return bool(self.found + self.true > 0)


def head_metrics(spec: HeadSpec) -> MetricCollection:
    """The metrics of a head's kind.

    - classification: `accuracy`, and `f1`, the mean over the labels that occur;
    - multilabel, at the head's thresholds: `f1` over all rows and labels together, and `exact_match`;
    - regression: `mae` in the head's unit, `r2`;
    - tokens: `span_f1`, `token_accuracy`;
    - embedding: `nearest_neighbour_accuracy`; oneshot: `nearest_prototype_accuracy`;
    - segmentation: `iou`, the mean over the labels that occur of intersection over union, and `pixel_accuracy`.
    """
    metrics: dict[str, Metric | MetricCollection]
    match spec:
        case ClassificationHead():
            labels = len(spec.labels)
            metrics = {"accuracy": MulticlassAccuracy(labels, average="micro"), "f1": MulticlassF1Score(labels)}
        case MultilabelHead():
            labels = len(spec.labels)
            f1 = (
                MultilabelF1Score(labels, average="micro", ignore_index=MISSING_CLASS)
                if labels > 1
                else BinaryF1Score(ignore_index=MISSING_CLASS)
            )
            metrics = {"f1": f1, "exact_match": ExactMatch()}
        case RegressionHead():
            metrics = {"mae": MeanAbsoluteError(), "r2": R2Score()}
        case TokensHead():
            metrics = {"span_f1": SpanF1(spec.labels), "token_accuracy": TokenAccuracy()}
        case EmbeddingHead():
            metrics = {"nearest_neighbour_accuracy": NearestNeighbourAccuracy()}
        case OneShotHead():
            metrics = {"nearest_prototype_accuracy": NearestPrototypeAccuracy()}
        case SegmentationHead():
            labels = len(spec.labels)
            metrics = {
                "iou": MulticlassJaccardIndex(labels),
                "pixel_accuracy": MulticlassAccuracy(labels, average="micro"),
            }
    return MetricCollection(metrics)


def update(spec: HeadSpec, metrics: MetricCollection, output: Tensor, target: Tensor) -> None:
    """Add one batch of a head's outputs and targets. Batches of texts may differ in length."""
    output, target = output.detach(), target.detach()
    match spec:
        case RegressionHead():
            output = output.reshape(target.shape)  # a head of one value may be [batch]
            known = ~torch.isnan(target).all(dim=1)
        case MultilabelHead():
            output = (output.sigmoid() >= torch.tensor(spec.threshold, device=output.device)).long()
            target = torch.where(torch.isnan(target), MISSING_CLASS, target).long()
            known = (target != MISSING_CLASS).any(dim=1)
        case TokensHead():
            output = output.argmax(dim=2)
            known = (target != MISSING_CLASS).any(dim=1)
        case SegmentationHead():
            output = output.argmax(dim=1)
            known = target != MISSING_CLASS
        case _:
            known = target != MISSING_CLASS
    if known.any():
        metrics.update(output[known], target[known])


def computed(metrics: MetricCollection) -> dict[str, float]:
    """The metrics' values; without those for which too few targets were known."""
    enough = {
        name: metric
        for name, metric in metrics.items(copy_state=False)
        if metric.update_called and getattr(metric, "enough", True)
    }
    return {name: float(metric.compute()) for name, metric in enough.items()}
