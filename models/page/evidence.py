"""What a run left in its directory to look at. A part that a run does not have is empty; a damaged one is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from polyhead.models.learning import history
from polyhead.models.run import Run, RunError, RunRecord
from polyhead.models.spec import ImageInput, ModelSpec

__all__ = ["Evidence", "Outcome"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Outcome:
    """A head on the test rows: its raw outputs and its targets, the same number of rows."""

    outputs: Array
    targets: Array


@dataclass(frozen=True)
class Evidence:
    """What the page of a run is made of.

    Attributes:
        spec: of the model.
        record: the content of `run.json`.
        entries: one per epoch, see `polyhead.models.learning.history`.
        outcomes: by head, from `predictions.safetensors`.
        images: of the first test rows, `uint8 [rows, height, width, channels]`, one channel or red, green, blue.
    """

    spec: ModelSpec
    record: RunRecord
    entries: Sequence[history.Entry]
    outcomes: Mapping[str, Outcome]
    images: Array | None

    @classmethod
    def of(cls, run: Run) -> Evidence:
        """Read it from a run's directory.

        Raises:
            RunError: a file is damaged.
        """
        return cls(
            spec=run.spec,
            record=run.record,
            entries=_entries(run.history),
            outcomes=_outcomes(run.predictions, run.spec),
            images=_images(run),
        )

    @property
    def epochs(self) -> list[int]:
        """Their numbers."""
        return [int(entry["epoch"]) for entry in self.entries]

    def names(self, *path: str) -> list[str]:
        """The keys that any epoch has at a place, in order of appearance."""
        return list(dict.fromkeys(key for entry in self.entries for key in _at(entry, path, {})))

    def series(self, *path: str) -> list[float]:
        """The value at a place, epoch by epoch; NaN where there is none."""
        values = [_at(entry, path, None) for entry in self.entries]
        return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _at(entry: Any, path: Sequence[str], default: Any) -> Any:
    for key in path:
        if not isinstance(entry, Mapping) or entry.get(key) is None:
            return default
        entry = entry[key]
    return entry


def _entries(path: Path) -> list[history.Entry]:
    if not path.exists():
        return []
    try:
        entries: Any = history.read(path)
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: is not JSON ({error}): train again") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "epoch" in entry for entry in entries):
        raise RunError(f"{path}: is no list of epochs: train again")
    return entries


def _arrays(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: cannot be read ({error}): train again") from None


def _outcomes(path: Path, spec: ModelSpec) -> dict[str, Outcome]:
    arrays = _arrays(path)
    found = {}
    for head in spec.heads:
        outputs, targets = arrays.get(f"{head}.outputs"), arrays.get(f"{head}.targets")
        if outputs is None or targets is None:
            continue
        if len(outputs) != len(targets):
            raise RunError(f"{path}: head {head!r} has {len(outputs)} outputs for {len(targets)} targets: train again")
        found[head] = Outcome(outputs, targets)
    return found


def _images(run: Run) -> Array | None:
    for name, spec in run.spec.inputs.items():
        if isinstance(spec, ImageInput):
            images = _arrays(run.samples).get(name)
            return None if images is None else images[..., ::-1] if spec.channels == "bgr" else images
    return None
