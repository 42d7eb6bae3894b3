"""A training run's directory: what `polyhead train` writes and `polyhead export` reads. No torch.

runs/digits/
  run.json              how to build the network again, the recipe, the metrics
  spec.yaml             the model's spec
  weights.safetensors   the state dict of the best epoch
  samples.safetensors   held-out rows, raw inputs by name
  tensorboard/          losses and metrics
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from polyhead.models.spec import ModelSpec, Strict, first_fault

__all__ = ["Recipe", "Run", "RunError", "RunRecord"]


class RunError(ValueError):
    """A run that failed, or whose directory cannot be used. The message says what, got, and fix."""


class Recipe(Strict):
    """Everything that decides how a run goes, besides data and network."""

    seed: int = Field(default=0, ge=0)
    max_epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=64, ge=2)  # batch normalisation needs two rows
    learning_rate: float = Field(default=3e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0)
    patience: int = Field(default=8, ge=1)  # epochs without a better validation loss before it stops
    loss_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )  # by head name; 1 where not named


class RunRecord(Strict):
    """The content of `run.json`."""

    format: Literal[1] = 1
    factory: str  # module:function that returns the untrained network
    recipe: Recipe
    epochs: int
    seconds: float
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
        """Write spec and record; the record last, since it marks the run as finished."""
        self.spec.dump(self.folder / "spec.yaml")
        (self.folder / "run.json").write_text(self.record.model_dump_json(indent=2) + "\n", encoding="utf-8")
