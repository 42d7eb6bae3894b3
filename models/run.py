"""A training run's directory: what `polyhead train` writes and `polyhead export` reads. No torch.

runs/digits/
  run.json              how to build the network again, the recipe, the metrics
  spec.yaml             the model's spec
  weights.safetensors   the state dict of the best epoch
  samples.safetensors   held-out rows, raw inputs by name
  tensorboard/          losses and metrics
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from polyhead.models.spec import ModelSpec, SpecError, first_fault

__all__ = ["Recipe", "Run", "RunRecord"]


class Recipe(BaseModel):
    """Everything that decides how a run goes, besides data and network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    max_epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    patience: int = 8  # epochs without a better validation loss before it stops
    loss_weights: dict[str, float] = {}  # by head name; 1 where not named


class RunRecord(BaseModel):
    """The content of `run.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
            SpecError: the folder is no finished run, or its files are damaged.
        """
        path = folder / "run.json"
        if not path.is_file():
            raise SpecError(
                f"{folder}: is no finished training run (it has no run.json): polyhead train NAME --out {folder}"
            )
        try:
            record = RunRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise SpecError(f"{path}: {first_fault(error)}") from None
        return cls(folder, record, ModelSpec.load(folder / "spec.yaml"))

    def write(self) -> None:
        """Write spec and record; the record last, since it marks the run as finished."""
        self.spec.dump(self.folder / "spec.yaml")
        (self.folder / "run.json").write_text(self.record.model_dump_json(indent=2) + "\n", encoding="utf-8")
