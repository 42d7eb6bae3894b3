"""How much each task's loss weighs in a step. A weighting takes the tasks' losses and returns what is summed up."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyhead.models.recipe import DWA_TEMPERATURE, Recipe
from polyhead.models.spec import HeadSpec, RegressionHead

__all__ = ["DynamicAverage", "Fixed", "Uncertainty", "build_weighting"]


class Fixed(nn.Module):
    """A weight per task, from the recipe.

    Args:
        weights: by task; a task of weight 0 is left out of every step.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.fixed = dict(weights)

    def forward(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each task's loss, a scalar, to its term of the sum. Tasks without a known target in the batch are absent."""
        return {task: self._term(task, loss) for task, loss in losses.items() if self.fixed[task] > 0}

    def _term(self, task: str, loss: Tensor) -> Tensor:
        return self.fixed[task] * loss

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied with now."""
        return dict(self.fixed)

    def follow(self, losses: Mapping[str, float]) -> None:
        """Take note of an epoch's mean training losses; at the end of each."""


class Uncertainty(Fixed):
    """Homoscedastic uncertainty: a variance is learnt for each task, and noisy tasks weigh less.

    Kendall, Gal & Cipolla 2018, "Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics" (CVPR): with s = log variance, a task's term is `exp(-s) / 2 * loss + s / 2` where the loss is a squared
    error, `exp(-s) * loss + s / 2` where it is a cross-entropy. The second form is taken for every kind but regression.
    A fixed weight multiplies the whole term, so it does not change the variance at which the term is least.

    Args:
        weights: by task, as for `Fixed`.
        heads: the spec of each task.
    """

    def __init__(self, weights: Mapping[str, float], heads: Mapping[str, HeadSpec]) -> None:
        super().__init__(weights)
        self.tasks = tuple(weights)
        self.factors = tuple(0.5 if isinstance(heads[task], RegressionHead) else 1.0 for task in weights)
        # One parameter each: of one vector, every task would reach all of it, and its gradient pass for a conflict.
        self.log_variances = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in weights)

    def _term(self, task: str, loss: Tensor) -> Tensor:
        place = self.tasks.index(task)
        s = self.log_variances[place]
        term: Tensor = self.fixed[task] * (self.factors[place] * torch.exp(-s) * loss + s / 2)
        return term

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied with now."""
        values = [math.exp(-float(variance.detach())) for variance in self.log_variances]
        return {
            task: self.fixed[task] * factor * value
            for task, factor, value in zip(self.tasks, self.factors, values, strict=True)
        }


class DynamicAverage(Fixed):
    """Dynamic weight average: a task whose loss falls slowly weighs more.

    Liu, Johns & Davison 2019, "End-to-end multi-task learning with attention" (CVPR): the weights are the number of
    tasks times the softmax of `r / temperature`, where r is a task's mean loss of the last epoch over that of the epoch
    before. In the first two epochs they are 1. Fixed weights multiply them.

    Args:
        weights: by task, as for `Fixed`.
        temperature: the higher, the more equal the weights.
    """

    def __init__(self, weights: Mapping[str, float], temperature: float = DWA_TEMPERATURE) -> None:
        super().__init__(weights)
        self.tasks = tuple(weights)
        self.temperature = temperature
        # The mean losses of the last two epochs, the older first; a buffer, so that a resumed run has them.
        self.past: Tensor
        self.register_buffer("past", torch.full((2, len(weights)), math.nan, dtype=torch.float64))

    def _term(self, task: str, loss: Tensor) -> Tensor:
        return self.weights()[task] * loss

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied with now."""
        before, last = self.past
        ratio = torch.where(before > 0, last / before, torch.nan)
        # A task that one of the two epochs did not see neither leads nor follows.
        ratio = torch.nan_to_num(ratio, nan=1.0, posinf=1.0)
        # A task of weight 0 learns nothing, and must take nothing from the others.
        taking_part = torch.tensor([self.fixed[task] > 0 for task in self.tasks])
        scores = (ratio / self.temperature).masked_fill(~taking_part, -math.inf)
        dynamic = (int(taking_part.sum()) * torch.softmax(scores, dim=0)).nan_to_num().tolist()
        return {task: self.fixed[task] * value for task, value in zip(self.tasks, dynamic, strict=True)}

    def follow(self, losses: Mapping[str, float]) -> None:
        """Take note of an epoch's mean training losses."""
        newest = [losses.get(task, math.nan) for task in self.tasks]
        self.past = torch.stack([self.past[1], self.past.new_tensor(newest)])


def build_weighting(recipe: Recipe, heads: Mapping[str, HeadSpec]) -> Fixed:
    """The weighting that a recipe asks for, of the heads that are trained."""
    weights = {name: recipe.loss_weights.get(name, 1.0) for name in heads}
    match recipe.weighting:
        case "uncertainty":
            return Uncertainty(weights, heads)
        case "dwa":
            return DynamicAverage(weights, recipe.dwa_temperature)
        case "fixed":
            return Fixed(weights)
