"""A training run's directory: what `polyhead train` writes and `polyhead export` reads. No torch.

runs/digits/
  run.json                  how to build the network again, the recipe, the metrics
  spec.yaml                 the model's spec
  recipe.yaml               the whole recipe
  tokenizer.json            of a text input, at the path that the spec names
  weights.safetensors       the state dict of the best epoch
  samples.safetensors       held-out rows, raw inputs by name; of texts the bytes, see `polyhead.models.textarray`
  predictions.safetensors   of all held-out rows, by head: `<head>.outputs`, `<head>.targets`
  prototypes.safetensors    by oneshot head: the mean vector of each of its labels, NaN where no row has it, and in
                            `<head>.examples` of how many rows
  history.json              every epoch, see `polyhead.models.learning.history`
  tensorboard/              losses and metrics
  report.html, report.png   a page to look at, see `polyhead.models.page`
  checkpoints/              while it runs: where --resume goes on
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from polyhead.models.recipe import Recipe
from polyhead.models.spec import ModelSpec, Strict, first_fault

__all__ = ["Parameters", "Run", "RunError", "RunRecord"]


class RunError(ValueError):
    """A run that failed, or whose directory cannot be used. The message says what, got, and fix."""


class Parameters(Strict):
    """How many parameters a network has."""

    total: int
    trunk: int  # 0 where the network has no module by that name
    heads: dict[str, int]  # empty where the network keeps its heads under no such name
    trainable: int  # that learnt in some epoch


class RunRecord(Strict):
    """The content of `run.json`."""

    format: Literal[2] = 2
    factory: str  # module:function that returns the untrained network
    recipe: Recipe
    data: str  # the sha256 of all rows: training, validation and test
    epochs: int
    best_epoch: int  # the one whose weights are kept, counted from 1
    monitor: str  # what made it the best: `loss`, or head/metric, on the validation rows
    score: float  # the monitored value of that epoch
    seconds: float
    parameters: Parameters
    metrics: dict[str, dict[str, float]]  # by head: metrics on the held-out test rows
    versions: dict[str, str]


class Run:
    """A finished run on disk."""

    def __init__(self, folder: Path, record: RunRecord, spec: ModelSpec) -> None:
        self.folder = folder
        self.record = record
        self.spec = spec

    @property
    def weights(self) -> Path:
        """The trained state dict."""
        return self.folder / "weights.safetensors"

    @property
    def samples(self) -> Path:
        """Held-out rows, raw inputs by name."""
        return self.folder / "samples.safetensors"

    @property
    def predictions(self) -> Path:
        """Outputs and targets of every held-out row."""
        return self.folder / "predictions.safetensors"

    @property
    def prototypes(self) -> Path:
        """The mean vector of each label of oneshot heads; there is no such file where the model has none."""
        return self.folder / "prototypes.safetensors"

    @property
    def history(self) -> Path:
        """What happened in each epoch."""
        return self.folder / "history.json"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run's record and spec.

        Raises:
            RunError: the folder is no finished run, or its files are damaged.
            SpecError: its spec is.
        """
        path = folder / "run.json"
        if not path.is_file():
            raise RunError(
                f"{folder}: is no finished training run (it has no run.json): polyhead train NAME --out {folder}"
            )
        try:
            data = json.loads(path.read_bytes())
            record = RunRecord.model_validate(data)
        except ValidationError as error:
            raise RunError(f"{path}: {first_fault(error, data)}") from None
        except (ValueError, OSError, RecursionError) as error:
            raise RunError(f"{path}: is not JSON ({error}): train again") from None
        run = cls(folder, record, ModelSpec.load(folder / "spec.yaml"))
        for needed in (run.weights, run.samples):
            if not needed.is_file():
                raise RunError(f"{folder}: {needed.name} is missing: train again")
        return run

    def write(self) -> None:
        """Write spec, recipe and record; the record last, since it marks the run as finished."""
        self.spec.dump(self.folder / "spec.yaml")
        self.record.recipe.dump(self.folder / "recipe.yaml")
        partial = self.folder / ".run.json"
        partial.write_text(self.record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(self.folder / "run.json")
