"""Handwritten digits of which three are learnt from examples alone: a metric head, and classes enrolled later.

Trained on the digits 0 to 6. The digits 7, 8 and 9 are in no training or validation row, for no head: they are enrolled
from one example or a few, without training (Snell et al. 2017, "Prototypical Networks for Few-shot Learning").

Seven classes are too few to learn what tells signs apart in general, so each batch makes up others from them: a digit's
half or its strokes with those of another digit, the whole turned and mirrored. Turned by 90 degrees a class counts as
another one (as in that paper); a 6 turned by 180 looks like a 9, of which no real example is seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.models.augment import Columns
from polyhead.models.data import Rows, Split
from polyhead.models.heads import OneShot, Regression
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import ModelSpec
from polyhead.models.zoo import digits

__all__ = ["MODEL", "NEW", "build", "network", "split"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

KNOWN = tuple(str(digit) for digit in range(7))
NEW = tuple(str(digit) for digit in range(7, 10))
DIM = 128
TURNS = 8  # four quarters, each plain and mirrored
WARPED = 0.8  # share of the rows that are bent
COMBINED = 0.6  # share of the batches whose signs are made of two digits

SPEC = ModelSpec.parse(
    {
        "name": "digits_oneshot",
        "version": "1.0",
        "description": "A handwritten sign, bright on dark; signs are enrolled from examples.",
        "inputs": {"image": digits.SPEC.inputs["image"].model_dump()},
        "heads": {
            "sign": {"kind": "oneshot", "dim": DIM, "labels": list(KNOWN), "scale": 10.0},
            "ink": digits.SPEC.heads["ink"].model_dump(),
        },
    }
)


def split(seed: int) -> Split:
    """The split of `digits`, without the digits that are to be new."""
    parts = {name: _known(part) for name, part in digits.split(seed).parts().items()}
    return Split(**parts)


def new(seed: int) -> Rows:
    """Every row of the new digits: `image`, and the target `sign` as an index in `NEW`."""
    everything = digits.rows()
    digit = everything.targets["digit"]
    found = everything.take(np.flatnonzero(digit >= len(KNOWN)))
    order = np.random.default_rng(seed).permutation(len(found))
    shuffled = found.take(order)
    return Rows(shuffled.inputs, {"sign": shuffled.targets["digit"] - len(KNOWN)})


def _known(part: Rows) -> Rows:
    kept = part.take(np.flatnonzero(part.targets["digit"] < len(KNOWN)))
    return Rows(kept.inputs, {"sign": kept.targets["digit"], "ink": kept.targets["ink"]})


def network(ink_location: float = 0.0, ink_scale: float = 1.0) -> MultiTaskNetwork:
    """The untrained network; location and scale of `ink` come with the weights."""
    # No mean over the pixels at the end: where a stroke is, tells signs apart.
    trunk = nn.Sequential(*_convolution(1, 64, 1), *_convolution(64, 128, 2), nn.Flatten(), nn.Dropout(0.2))
    features = 128 * 4 * 4
    return MultiTaskNetwork(
        trunk,
        {
            "sign": OneShot(features, DIM, normalize=True),
            "ink": Regression(features, location=ink_location, scale=ink_scale, hidden=64),
        },
    )


def _convolution(channels: int, width: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.ReLU()


def build(train: Rows) -> MultiTaskNetwork:
    """The untrained network with the scale of the training targets."""
    ink = train.targets["ink"]
    return network(float(np.mean(ink)), float(np.std(ink)))


def imagine(inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
    """A batch of signs that nobody has written, each class again in several rows; their `ink` is not known."""
    image, sign = inputs["image"], targets.get("sign")
    bent = torch.rand(len(image), generator=generator).to(image.device) < WARPED
    image = torch.where(bent[:, None, None, None], warped(image, generator), image)
    if float(torch.rand(1, generator=generator)) < COMBINED:  # drawn whichever heads are trained
        image = image if sign is None else combined(image, sign, generator)
        bent = torch.ones_like(bent)
    turn = torch.randint(0, TURNS, (len(image),), generator=generator).to(image.device)
    image = turned(image, turn)
    changed = dict(targets)
    if sign is not None:
        changed["sign"] = torch.where(sign >= 0, sign + len(KNOWN) * turn, sign)
    if "ink" in targets:
        changed["ink"] = targets["ink"].masked_fill(bent[:, None], torch.nan)
    return {**inputs, "image": image}, changed


def warped(image: Tensor, generator: torch.Generator, strength: float = 0.3) -> Tensor:
    """Turned, stretched, slanted and moved a little; `uint8 [batch, height, width, 1]`."""

    def draw(*shape: int) -> Tensor:
        return (torch.rand(len(image), *shape, generator=generator) * 2 - 1) * strength

    angle, stretch, slant, move = 0.35 * draw(), 1 + 0.2 * draw(2), 0.3 * draw(), 0.25 * draw(2)
    first = torch.stack([angle.cos() * stretch[:, 0], slant - angle.sin(), move[:, 0]], dim=1)
    second = torch.stack([angle.sin(), angle.cos() * stretch[:, 1], move[:, 1]], dim=1)
    pixels = image.permute(0, 3, 1, 2).float()
    matrix = torch.stack([first, second], dim=1).to(image.device)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False).round().to(torch.uint8).permute(0, 2, 3, 1)


def combined(image: Tensor, sign: Tensor, generator: torch.Generator) -> Tensor:
    """Each digit with half of another, or with its strokes; which other, is one choice a digit for the whole batch."""
    partner = torch.randperm(len(KNOWN), generator=generator)
    other = torch.zeros_like(image)
    for digit in range(len(KNOWN)):
        own, found = (sign == digit).nonzero()[:, 0], (sign == partner[digit]).nonzero()[:, 0]
        if len(own) and len(found):
            other[own] = image[found[torch.randint(0, len(found), (len(own),), generator=generator)]]
    how = int(torch.randint(0, 3, (1,), generator=generator))
    if how == 2:
        return torch.maximum(image, other)
    axis = 1 + how
    half = image.shape[axis] // 2
    return torch.cat([image.narrow(axis, 0, half), other.narrow(axis, half, half)], dim=axis)


def turned(image: Tensor, turn: Tensor) -> Tensor:
    """Each row turned by as many quarters as `turn % 4`, and mirrored where `turn >= 4`."""
    result = image.clone()
    for quarters in range(TURNS):
        rows = turn == quarters
        found = torch.rot90(image[rows], quarters % 4, (1, 2))
        result[rows] = found.flip(2) if quarters >= 4 else found
    return result


MODEL = ReferenceModel(
    spec=SPEC,
    recipe=Recipe(max_epochs=60, batch_size=128, learning_rate=3e-3, patience=60, loss_weights={"ink": 0.1}),
    split=split,
    build=build,
    factory="polyhead.models.zoo.digits_oneshot:network",
    augment=imagine,
)
