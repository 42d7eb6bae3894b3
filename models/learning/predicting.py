"""A network's outputs on rows in memory, in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from polyhead.models.calling import Caller
from polyhead.models.data import Batches, Rows

__all__ = ["EVALUATION_BATCH", "predict", "shortest_first"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

EVALUATION_BATCH = 256


def predict(caller: Caller, rows: Rows, device: torch.device | str = "cpu") -> dict[str, Array]:
    """Each head's outputs, `float32`, in the order of the rows.

    Outputs per token are filled up with zeros to the longest row. The network is left in evaluation on the device.
    """
    caller.to(device).eval()
    order = shortest_first(rows)
    found: dict[str, list[Array]] = {name: [] for name in caller.heads}
    with torch.inference_mode():
        for inputs, _ in Batches(rows.of(()), EVALUATION_BATCH, lambda _epoch: order):
            for name, output in caller(**{key: value.to(device) for key, value in inputs.items()}).items():
                found[name].append(output.cpu().numpy())
    back = np.argsort(order, kind="stable")
    return {name: _stacked(outputs)[back] for name, outputs in found.items()}


def shortest_first(rows: Rows) -> Array:
    """Positions from the shortest row to the longest, so that batches hold little padding."""
    longest = rows.longest()
    return np.arange(len(rows)) if longest is None else np.argsort(longest, kind="stable")


def _stacked(outputs: list[Array]) -> Array:
    """Batches one below the other; those of tokens differ in length."""
    if len({output.shape[1:] for output in outputs}) > 1:
        longest = max(output.shape[1] for output in outputs)
        outputs = [np.pad(output, ((0, 0), (0, longest - output.shape[1]), (0, 0))) for output in outputs]
    return np.concatenate(outputs)
