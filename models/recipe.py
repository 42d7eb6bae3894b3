"""The recipe of a training run: everything that decides how it goes, besides data and network. No torch.

A recipe is YAML, one key a choice. What a key leaves out has the default below; unknown keys are refused. `polyhead
train` prints the whole recipe and saves it beside the weights as `recipe.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StrictBool, StrictStr, ValidationError, model_validator

from polyhead.models.faults import first_fault
from polyhead.models.spec import SpecError, Strict
from polyhead.models.yaml import read_yaml

__all__ = ["Recipe", "RecipeError", "Unfreezing"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

DWA_TEMPERATURE = 2.0
# Metrics of which less is better; of every other metric, more is.
LESS_IS_BETTER = ("loss", "mae", "mse", "rmse")


class RecipeError(SpecError):
    """A recipe that cannot be read, or asks for something impossible. The message says what, got, and fix."""


class Unfreezing(Strict):
    """Gradual unfreezing from the top (Howard & Ruder 2018, "Universal Language Model Fine-tuning", ULMFiT)."""

    after_epochs: int = Field(default=1, ge=0)  # so long the heads learn alone
    blocks_per_epoch: int = Field(default=1, ge=1)  # so many of the trunk's blocks join them each epoch then

    def learning(self, epoch: int, blocks: int) -> int:
        """How many of the trunk's blocks, counted from the top, learn in an epoch; epochs count from 0."""
        return min(blocks, max(0, epoch - self.after_epochs + 1) * self.blocks_per_epoch)


class Recipe(Strict):
    """Everything that decides how a run goes, besides data and network."""

    # Of the network's first weights, the order of the rows, augmentation, dropout and conflicting gradients.
    seed: int = Field(default=0, ge=0)
    max_epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=64, ge=2)  # batch normalisation needs two rows

    # What is learnt.
    heads: tuple[StrictStr, ...] | None = Field(default=None, min_length=1)  # these alone; all where left out
    augment: StrictBool = True  # the model's augmentation of training rows, where it has one

    # The optimiser, AdamW.
    learning_rate: Rate = 3e-3
    weight_decay: Weight = 1e-4
    schedule: Literal["onecycle", "cosine", "linear", "constant"] = "onecycle"
    # The share of all steps in which the rate rises; where left out 0.3 for onecycle, 0 for the others.
    warmup: float | None = Field(default=None, ge=0, lt=1)
    gradient_clip: Rate | None = None  # the largest norm of a step's whole gradient

    # How the tasks' losses come together.
    loss_weights: dict[str, Weight] = Field(default_factory=dict)  # by head; 1 where not named, 0 learns nothing
    # On top of loss_weights: `uncertainty` learns a variance per task, `dwa` follows how fast each loss falls.
    weighting: Literal["fixed", "uncertainty", "dwa"] = "fixed"
    dwa_temperature: Rate = DWA_TEMPERATURE  # of dwa: the higher, the more equal the weights
    # What the shared parameters get from tasks that may conflict; see `polyhead.models.learning.conflict`.
    gradients: Literal["sum", "upgrad", "dualproj", "pcgrad", "mgda", "imtlg", "alignedmtl", "graddrop", "config"] = (
        "sum"
    )

    # Tasks of unequal data.
    # An epoch takes every row once (shuffle); or draws as many, each for a task: all tasks alike (balanced), or by the
    # number of rows with labels for the task (proportional), to the power of 1 / sampling_temperature.
    sampling: Literal["shuffle", "proportional", "balanced"] = "shuffle"
    sampling_temperature: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    group_lengths: StrictBool = True  # texts of about one length share a batch: less padding, fewer tokens to compute
    class_weights: Literal["none", "balanced"] = "none"  # of classes within a head, by how rare they are
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)  # of classification heads
    dice: Weight = 0.0  # of the soft Dice loss beside the cross-entropy of segmentation heads

    # Fine-tuning. The network's `trunk` is what `polyhead.models.network.MultiTaskNetwork` calls so.
    freeze_trunk: StrictBool = False  # for good; its normalisation and dropout are in evaluation then
    unfreeze: Unfreezing | None = None  # a frozen trunk that joins block by block, from the top
    freeze: tuple[StrictStr, ...] = ()  # these parameters for good, by how their names begin, as `trunk.embeddings`
    trunk_learning_rate: Rate | None = None  # of the trunk's top block; learning_rate where left out
    layer_decay: float = Field(default=1.0, gt=0, le=1)  # each block's rate is so many times that of the one above

    # When it stops, and which epoch is kept.
    monitor: StrictStr = Field(default="loss", pattern=r"^(loss|[A-Za-z][A-Za-z0-9_-]*/[a-z0-9_]+)$")  # or head/metric
    patience: int = Field(default=8, ge=1)  # epochs without a better monitored value before it stops

    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"  # 16-mixed needs a GPU
    # Measure the tasks' gradients once an epoch, and write weights, graph and embeddings for TensorBoard.
    inspect: StrictBool = False

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less or more of the monitored value is better."""
        return "min" if self.monitor.rpartition("/")[2] in LESS_IS_BETTER else "max"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.freeze_trunk:
            for key, asked in (
                ("unfreeze", self.unfreeze is not None),
                ("trunk_learning_rate", self.trunk_learning_rate is not None),
                ("layer_decay", self.layer_decay != 1),
            ):
                if asked:
                    raise ValueError(f"freeze_trunk freezes the trunk for good, so {key} says nothing: remove one")
        if self.weighting != "dwa" and self.dwa_temperature != DWA_TEMPERATURE:
            raise ValueError(f"dwa_temperature is of weighting: dwa, got weighting: {self.weighting}: remove it")
        if self.sampling != "proportional" and self.sampling_temperature != 1:
            raise ValueError(
                f"sampling_temperature is of sampling: proportional, got sampling: {self.sampling}: remove it"
            )
        if self.heads is not None and len(set(self.heads)) < len(self.heads):
            raise ValueError(f"heads names a head twice: {', '.join(self.heads)}")
        head = self.monitor.rpartition("/")[0]
        if head and self.heads is not None and head not in self.heads:
            raise ValueError(f"monitor {self.monitor!r} is of a head that is not trained ({', '.join(self.heads)})")
        return self

    @classmethod
    def parse(cls, data: Any, source: str = "recipe") -> Self:
        """Read a recipe from plain data; `source` names it in errors.

        Raises:
            RecipeError: with the first fault's place, what was got, and the number of further faults.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(f"{source}: {first_fault(error, data)}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe from a YAML file.

        Raises:
            RecipeError: the file cannot be read, is no YAML, repeats a key, or is no valid recipe.
        """
        return cls.parse(read_yaml(path, RecipeError), str(path))

    def changed(self, changes: Any, source: str = "recipe") -> Self:
        """This recipe with other values of some keys.

        Raises:
            RecipeError: the changes are no mapping, or the result is no valid recipe.
        """
        if not isinstance(changes, Mapping):
            raise RecipeError(f"{source}: a recipe is a mapping of keys, got {changes!r:.80}")
        return self.parse({**self.model_dump(), **changes}, source)

    def text(self) -> str:
        """The whole recipe as YAML, in the order the keys are declared."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)

    def dump(self, path: Path) -> None:
        """Write the whole recipe as YAML."""
        path.write_text(self.text(), encoding="utf-8")
