"""What TensorBoard shows beside losses and metrics: gradients, weights, the embedding projector, the graph.

Each function takes a `SummaryWriter` of `torch.utils.tensorboard`, as Lightning's `TensorBoardLogger.experiment` is.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from polyhead.models.calling import Caller
from polyhead.models.learning.inspection import GradientReport, weight_norms

__all__ = ["InspectionError", "log_gradients", "log_graph", "log_projector", "log_weight_norms"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

POINTS = 5000  # in the projector, which runs in a browser
SPRITE = 8192  # pixels: the projector refuses a larger sheet of thumbnails
THUMBNAIL = 48  # pixels, at most


class InspectionError(ValueError):
    """Something that cannot be shown. The message says what, got, and fix."""


def log_gradients(writer: SummaryWriter, report: GradientReport, step: int) -> None:
    """Write scalars `gradient_norm/<task>` and `gradient_cosine/<a>/<b>`."""
    for task, norm in report.norms.items():
        writer.add_scalar(f"gradient_norm/{task}", norm, step)
    for pair, cosine in report.cosines.items():
        writer.add_scalar(f"gradient_cosine/{pair.replace('|', '/')}", cosine, step)


def log_weight_norms(writer: SummaryWriter, network: nn.Module, step: int) -> None:
    """Write scalars `weight_norm/<part>`; see `weight_norms`."""
    for part, norm in weight_norms(network).items():
        writer.add_scalar(f"weight_norm/{part}", norm, step)


def log_projector(
    writer: SummaryWriter,
    name: str,
    vectors: Array | Tensor,
    labels: Sequence[object],
    images: Array | Tensor | None = None,
    step: int = 0,
) -> None:
    """Write vectors for TensorBoard's embedding projector: its tab shows them in two or three dimensions.

    Of more than `POINTS` rows, as many are written, evenly spaced.

    Args:
        writer: of TensorBoard. Files of the same name and step that an earlier one left are replaced.
        name: of the embedding.
        vectors: float `[rows, dim]`.
        labels: what each row is, shown at its point.
        images: `uint8 [rows, height, width, channels]` as the wire carries them, one or three channels; thumbnails.
        step: the epoch.

    Raises:
        InspectionError: rows differ in number, or the arrays are of another shape.
    """
    rows, pictures = torch.as_tensor(vectors).detach().float().cpu(), images
    if rows.dim() != 2 or len(rows) != len(labels) or (pictures is not None and len(pictures) != len(labels)):
        raise InspectionError(
            f"projector {name!r}: {len(labels)} labels, vectors {list(rows.shape)}"
            f"{'' if pictures is None else f', images {list(pictures.shape)}'}: "
            "give vectors [rows, dim], and a label and an image for each"
        )
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InspectionError(f"projector {name!r} is no name of a folder: use letters, digits, '.', '_', '-'")
    kept = np.unique(np.linspace(0, len(labels) - 1, min(POINTS, len(labels))).astype(np.int64))
    folder = Path(writer.log_dir) / f"{step:05d}" / name
    shutil.rmtree(folder, ignore_errors=True)  # the writer would print about it
    writer.add_embedding(
        rows[torch.from_numpy(kept)],
        metadata=[" ".join(str(labels[row]).split()) for row in kept],  # one row a line, one column
        label_img=None if pictures is None else _thumbnails(torch.as_tensor(pictures)[torch.from_numpy(kept)]),
        global_step=step,
        tag=name,
    )


def log_graph(writer: SummaryWriter, caller: Caller, example: Mapping[str, Tensor]) -> None:
    """Write the network's graph, as it runs in evaluation on an example.

    Args:
        writer: of TensorBoard.
        caller: with the network; afterwards every part of it is in the mode it was in.
        example: raw arrays by name, each `[batch, …]`, on the network's device.

    Raises:
        InspectionError: the network cannot be traced.
    """
    modes = {module: module.training for module in caller.modules()}
    try:
        # The writer prints what it then raises.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)  # what the writer itself calls
            warnings.filterwarnings("ignore", category=TracerWarning)  # a picture: it is never run
            writer.add_graph(_Positional(caller, tuple(example)), tuple(example.values()))
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InspectionError(f"the network's graph cannot be traced ({reason[0]}): train without it") from error
    finally:
        for module, training in modes.items():
            module.training = training


class _Positional(nn.Module):
    """A network that takes its inputs by position, and returns its heads side by side: what the tracer wants."""

    def __init__(self, caller: Caller, names: tuple[str, ...]) -> None:
        super().__init__()
        self.caller = caller
        self.names = names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.caller(**dict(zip(self.names, inputs, strict=True))).values())


def _thumbnails(images: Tensor) -> Tensor:
    """Images `uint8 [rows, height, width, channels]` to float `[rows, channels, side, side]` from 0 to 1."""
    pictures = images.permute(0, 3, 1, 2).float() / 255
    height, width = pictures.shape[2:]
    side = max(height, width)
    # The projector draws squares.
    pictures = functional.pad(pictures, (0, side - width, 0, side - height))
    largest = min(THUMBNAIL, SPRITE // math.ceil(math.sqrt(len(images))))
    return pictures if side <= largest else functional.adaptive_avg_pool2d(pictures, largest)
