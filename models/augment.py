"""Changes of a batch while training, so that the network sees no row twice the same.

Each is a callable `(inputs, targets, generator) -> (inputs, targets)` on tensors by input and by head name, before
preprocessing: images are `uint8 [batch, height, width, channels]`, texts are token ids. What moves an image's pixels
moves those of its masks, the segmentation targets `int64 [batch, height, width]`, alike. All chance comes from the
generator: from the same state it draws the same changes. What is given is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polyhead.models.losses import MISSING_CLASS

__all__ = ["Augment", "Columns", "Compose", "Erase", "HorizontalFlip", "Jitter", "MaskTokens", "Shift"]

Columns = dict[str, Tensor]
Augment = Callable[[Columns, Columns, torch.Generator], tuple[Columns, Columns]]


class Compose:
    """One augmentation after the other."""

    def __init__(self, *steps: Augment) -> None:
        self.steps = steps

    def __call__(self, inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
        """The batch after every step."""
        for step in self.steps:
            inputs, targets = step(inputs, targets, generator)
        return inputs, targets


@dataclass(frozen=True)
class HorizontalFlip:
    """Left to right.

    Attributes:
        image: the input.
        masks: the segmentation heads of this image; one that is not trained may be named too.
        probability: of each row.
    """

    image: str
    masks: tuple[str, ...] = ()
    probability: float = 0.5

    def __call__(self, inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
        """The batch with some of its rows flipped."""
        image = _image(inputs, self.image)
        chosen = _draw(generator, image, len(image)) < self.probability

        def flipped(pixels: Tensor) -> Tensor:
            return torch.where(_per_row(chosen, pixels), pixels.flip(2), pixels)

        return _moved(self, inputs, targets, flipped)


@dataclass(frozen=True)
class Shift:
    """By whole pixels, up or down and left or right; the edge's pixels fill what comes free.

    Attributes:
        image: the input.
        pixels: the most it moves, in each direction.
        masks: the segmentation heads of this image; one that is not trained may be named too.
    """

    image: str
    pixels: int
    masks: tuple[str, ...] = ()

    def __call__(self, inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
        """The batch with every row moved, by 0 too."""
        image = _image(inputs, self.image)
        rows, height, width = image.shape[:3]
        drawn = _draw(generator, image, 2, rows) * (2 * self.pixels + 1)
        down, right = drawn.floor().long() - self.pixels
        row = torch.arange(rows, device=image.device)[:, None, None]
        from_y = (torch.arange(height, device=image.device) - down[:, None]).clamp(0, height - 1)[:, :, None]
        from_x = (torch.arange(width, device=image.device) - right[:, None]).clamp(0, width - 1)[:, None, :]
        return _moved(self, inputs, targets, lambda pixels: pixels[row, from_y, from_x])


@dataclass(frozen=True)
class Jitter:
    """Brightness (times a factor), then contrast (the distance to the row's mean, times a factor).

    Attributes:
        image: the input.
        brightness, contrast: the factors lie within 1 - this and 1 + this.
    """

    image: str
    brightness: float = 0.2
    contrast: float = 0.2

    def __call__(self, inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
        """The batch in another light."""
        image = _image(inputs, self.image)
        first, second = 2 * _draw(generator, image, 2, len(image)) - 1
        light, contrast = _per_row(1 + self.brightness * first, image), _per_row(1 + self.contrast * second, image)
        pixels = image.float() * light
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        pixels = ((pixels - mean) * contrast + mean).round().clamp(0, 255)
        return {**inputs, self.image: pixels.to(torch.uint8)}, targets


@dataclass(frozen=True)
class Erase:
    """A square of one value anywhere, cut by the image's edges (DeVries & Taylor 2017, "Cutout").

    Attributes:
        image: the input.
        size: of the square's side, in pixels.
        masks: the segmentation heads of this image: under the square nothing can be seen, so their targets are missing
            there. One that is not trained may be named too.
        probability: of each row.
        value: of the erased pixels.
    """

    image: str
    size: int
    masks: tuple[str, ...] = ()
    probability: float = 0.5
    value: int = 0

    def __call__(self, inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
        """The batch with a hole in some of its rows."""
        image = _image(inputs, self.image)
        rows, height, width = image.shape[:3]
        chance, y, x = _draw(generator, image, 3, rows)
        inside = [self._covers((centre * length).floor(), length) for centre, length in ((y, height), (x, width))]
        hole = inside[0][:, :, None] & inside[1][:, None, :] & (chance < self.probability)[:, None, None]

        def erased(pixels: Tensor) -> Tensor:
            if pixels.ndim == image.ndim:
                return pixels.masked_fill(hole[..., None], self.value)
            return pixels.masked_fill(hole, MISSING_CLASS)

        return _moved(self, inputs, targets, erased)

    def _covers(self, centre: Tensor, length: int) -> Tensor:
        """Which places of an axis lie in the square around each row's centre: `[rows, length]`."""
        start = centre[:, None] - self.size // 2
        place = torch.arange(length, device=centre.device)
        return (place >= start) & (place < start + self.size)


@dataclass(frozen=True)
class MaskTokens:
    """Words hidden behind the mask token, so that the rest of a text must do.

    Attributes:
        mask: the mask token's id.
        special: ids that are never hidden: those of `[CLS]`, `[SEP]` and the like.
        probability: of each token.
        ids, attention: the text's arrays.
    """

    mask: int
    special: tuple[int, ...]
    probability: float = 0.1
    ids: str = "input_ids"
    attention: str = "attention_mask"

    def __call__(self, inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
        """The batch with some of its tokens hidden; padding stays."""
        ids, attention = _named(inputs, self.ids), _named(inputs, self.attention)
        drawn = _draw(generator, ids, *ids.shape) < self.probability
        kept = torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype, device=ids.device))
        return {**inputs, self.ids: ids.masked_fill(drawn & (attention != 0) & ~kept, self.mask)}, targets


def _draw(generator: torch.Generator, like: Tensor, *shape: int) -> Tensor:
    """Numbers from 0 to 1, drawn where the generator is, so that a batch on a GPU gets the same."""
    return torch.rand(*shape, generator=generator, device=generator.device).to(like.device)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _named(inputs: Columns, name: str) -> Tensor:
    if name not in inputs:
        raise ValueError(f"augmentation of {name!r}, which the batch lacks (it has {', '.join(inputs)})")
    return inputs[name]


def _image(inputs: Columns, name: str) -> Tensor:
    image = _named(inputs, name)
    if image.ndim != 4 or image.dtype != torch.uint8:
        raise ValueError(
            f"augmentation of {name!r}: an image is uint8 [batch, height, width, channels], "
            f"got {image.dtype} {list(image.shape)}"
        )
    return image


def _moved(
    step: HorizontalFlip | Shift | Erase, inputs: Columns, targets: Columns, move: Callable[[Tensor], Tensor]
) -> tuple[Columns, Columns]:
    """The image and its masks, moved alike.

    Raises:
        ValueError: a target has a value per pixel of the image and is not named as its mask: the two would differ.
    """
    image = inputs[step.image]
    forgotten = [n for n, t in targets.items() if t.shape == image.shape[:3] and n not in step.masks]
    if forgotten:
        raise ValueError(
            f"{type(step).__name__} of {step.image!r} moves its pixels, not those of target {forgotten[0]!r}: "
            f"name it in masks"
        )
    masks = {name: move(targets[name]) for name in step.masks if name in targets}
    return {**inputs, step.image: move(image)}, {**targets, **masks}
