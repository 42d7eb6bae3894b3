"""What happened in each epoch of a run: the content of `history.json`. No torch.

One entry an epoch:

    epoch            counted from 1
    steps            of the optimiser, until its end
    seconds          training and validation
    loss             train, validation: the sum over the heads, each loss times its fixed weight
    train            by head: the mean loss over the training rows
    validation       by head: `loss`, and the metrics of its kind; without those for which too few targets are known
    weights          by head: what its loss was multiplied with at the end
    learning_rates   by group of parameters, at the end
    trainable        how many parameters learnt
    gradients        norms by head, cosines by pair `a|b`, at the first step; where the recipe says inspect
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyhead.models.recipe import Recipe, RecipeError

__all__ = ["Entry", "best_epoch", "exhausted", "monitored", "read", "write"]

Entry = dict[str, Any]


def monitored(entry: Entry, monitor: str) -> float:
    """The value of an epoch that decides whether it is the best.

    Raises:
        RecipeError: the epoch has no such value.
    """
    head, _, metric = monitor.rpartition("/")
    values = entry["validation"].get(head, {}) if head else {"loss": entry["loss"].get("validation")}
    value: float | None = values.get(metric)
    if value is None:
        known = [f"{name}/{key}" for name, metrics in entry["validation"].items() for key in metrics]
        raise RecipeError(
            f"monitor {monitor!r} has no value on the validation rows (there are: {', '.join(known) or 'none'}): "
            "monitor another, or give validation rows with known targets"
        )
    return value


def best_epoch(history: Sequence[Entry], recipe: Recipe) -> int:
    """The first epoch with the best monitored value, counted from 1."""
    values = [monitored(entry, recipe.monitor) for entry in history]
    return values.index(min(values) if recipe.mode == "min" else max(values)) + 1


def exhausted(history: Sequence[Entry], recipe: Recipe) -> bool:
    """Whether so many epochs as the recipe's patience went by without a better one."""
    return bool(history) and len(history) - best_epoch(history, recipe) >= recipe.patience


def write(history: Sequence[Entry], path: Path) -> None:
    """Write the epochs as JSON; a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(list(history), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> list[Entry]:
    """The epochs of a run."""
    entries: list[Entry] = json.loads(path.read_bytes())
    return entries
