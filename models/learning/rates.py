"""The optimiser of a run, and how its learning rates go from the first step to the last."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from polyhead.models.recipe import Recipe

__all__ = ["build_optimizer", "build_schedule", "factor"]

ONECYCLE_WARMUP = 0.3


def build_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, "Decoupled weight decay regularization") over groups with rates of their own."""
    # One kernel over all parameters, several times as fast on a CPU; in mixed precision Lightning clips no gradients of
    # an optimiser that is made so.
    fused = recipe.precision == "32"
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused)


def build_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The schedule over so many steps; every group's own rate is its highest.

    `onecycle` is that of Smith & Topin 2018, "Super-convergence", with the momentum going against the rate.
    """
    if recipe.schedule == "onecycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        warmup = ONECYCLE_WARMUP if recipe.warmup is None else recipe.warmup
        if warmup * steps == 1:  # the library divides by the steps after the first of the warm-up
            warmup = 1.5 / steps
        return OneCycleLR(optimizer, max_lr=rates, total_steps=steps, pct_start=warmup)
    return LambdaLR(optimizer, factor(recipe.schedule, recipe.warmup or 0.0, steps))


def factor(schedule: str, warmup: float, steps: int) -> Callable[[int], float]:
    """What the rates are multiplied with at a step, counted from 0.

    They rise linearly over the share `warmup` of the steps, then stay (constant), or fall towards 0 on a straight line
    (linear) or half a cosine (Loshchilov & Hutter 2017, "SGDR", without restarts).
    """
    rising = math.ceil(warmup * steps)

    def at(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        gone = (step - rising) / max(1, steps - rising)
        match schedule:
            case "cosine":
                return (1 + math.cos(math.pi * gone)) / 2
            case "linear":
                return 1 - gone
            case _:
                return 1.0

    return at
