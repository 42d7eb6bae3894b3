"""Whether data, spec and recipe fit, told before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from polyhead.models import targets
from polyhead.models.data import Rows, Split
from polyhead.models.metrics import head_metrics
from polyhead.models.recipe import Recipe, RecipeError
from polyhead.models.spec import InputSpec, ModelSpec, SpecError, TextInput

__all__ = ["heads_to_train"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def heads_to_train(spec: ModelSpec, split: Split, recipe: Recipe) -> tuple[str, ...]:
    """The heads that the data has targets for, or those of them that the recipe names; in the order of the spec.

    Raises:
        SpecError: the data does not fit the spec.
        RecipeError: the recipe names heads or metrics that are not there, or wants a device that is not.
    """
    for part, rows in split.parts().items():
        _check_rows(spec, part, rows)
    heads = tuple(name for name in spec.heads if name in split.train.targets)
    if not heads:
        raise SpecError("the data has targets for none of the heads: there is nothing to learn")
    for name in recipe.heads or ():
        if name not in heads:
            raise RecipeError(f"heads: {name!r} is no head with targets in the data (there are: {', '.join(heads)})")
    heads = tuple(name for name in heads if recipe.heads is None or name in recipe.heads)
    for part, rows in split.parts().items():
        absent = [name for name in heads if name not in rows.targets]
        if absent:
            raise SpecError(f"the {part} rows have no targets of {absent[0]!r}: give them, missing ones marked as such")
    _check_recipe(spec, heads, recipe)
    return heads


def _check_rows(spec: ModelSpec, part: str, rows: Rows) -> None:
    for name in spec.inputs:
        if name not in rows.inputs:
            raise SpecError(f"the {part} rows have no input {name!r} (they have {', '.join(rows.inputs)})")
    if not len(rows):
        raise SpecError(f"the {part} part has no rows: give some to train on, to stop by, and to test on")
    for name, value in spec.inputs.items():
        _check_input(name, value, rows.inputs[name])
    for name, column in rows.targets.items():
        if name not in spec.heads:
            raise SpecError(f"the {part} rows have targets of {name!r}, which is no head ({', '.join(spec.heads)})")
        targets.check(name, spec.heads[name], column)


def _check_input(name: str, value: InputSpec, column: Array) -> None:
    if isinstance(value, TextInput):
        if column.dtype != object or not all(isinstance(text, str) for text in column):
            raise SpecError(f"input {name!r} is {column.dtype} {list(column.shape)}: give an object array of str")
        return
    shape = value.shape
    fits = column.ndim == 1 + len(shape) and all(
        isinstance(wanted, str) or wanted == got for wanted, got in zip(shape, column.shape[1:], strict=False)
    )
    if column.dtype != value.dtype or not fits:
        wanted_shape = ", ".join(map(str, ("rows", *shape)))
        raise SpecError(f"input {name!r} is {column.dtype} {list(column.shape)}: give {value.dtype} [{wanted_shape}]")


def _check_recipe(spec: ModelSpec, heads: tuple[str, ...], recipe: Recipe) -> None:
    unknown = sorted(set(recipe.loss_weights) - set(spec.heads))
    if unknown:
        raise RecipeError(f"loss weight for {unknown[0]!r}, which is no head (heads: {', '.join(sorted(spec.heads))})")
    if not any(recipe.loss_weights.get(name, 1.0) > 0 for name in heads):
        raise RecipeError("loss_weights are 0 for every head that is trained: there is nothing to learn")
    head, _, metric = recipe.monitor.rpartition("/")
    if head:
        there = [f"{name}/{key}" for name in heads for key in ("loss", *head_metrics(spec.heads[name]).keys())]
        if f"{head}/{metric}" not in there:
            raise RecipeError(f"monitor {recipe.monitor!r} is measured nowhere (there are: loss, {', '.join(there)})")
    if recipe.precision == "16-mixed" and not torch.cuda.is_available():
        raise RecipeError(
            "precision: 16-mixed needs a GPU, and there is none here: half precision is not faster on a CPU, "
            "and its small range needs a GPU's loss scaling; take 32, or bf16-mixed"
        )
