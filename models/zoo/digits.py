"""Handwritten digits: four heads on one small residual trunk.

The 1 797 real digits that scikit-learn ships (Alpaydin & Kaynak 1998, UCI "Optical Recognition of Handwritten Digits"),
8 x 8 pixels. The original's 17 levels of ink (0-16) are stretched to the 256 of an image file, bright on dark.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from polyhead.models.augment import Columns
from polyhead.models.data import Rows, Split
from polyhead.models.heads import Regression, build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.resnet import ResNet

__all__ = ["MODEL", "network", "rows", "split"]

LEVELS = 16  # of ink, in the original data

SPEC = ModelSpec.parse(
    {
        "name": "digits",
        "version": "1.0",
        "description": "A handwritten digit, bright on dark.",
        "inputs": {
            "image": {
                "kind": "image",
                "size": [8, 8],
                "channels": "gray",
                "resize": "box",
                "mean": [0.305],
                "std": [0.376],
            }
        },
        "heads": {
            "digit": {"kind": "classification", "labels": [str(d) for d in range(10)]},
            "parity": {"kind": "classification", "labels": ["even", "odd"]},
            "ink": {
                "kind": "regression",
                "unit": "level",
                "description": "mean intensity of the inked pixels, 0-16",
            },
            "embedding": {"kind": "embedding", "dim": 64, "normalize": True},
        },
    }
)


def rows() -> Rows:
    """Every digit: `image` `uint8 [1797, 8, 8, 1]`, and each head's target."""
    data = load_digits()
    levels = data.images.astype(np.float32)
    digit = data.target.astype(np.int64)
    ink = levels.sum(axis=(1, 2)) / np.maximum((levels > 0).sum(axis=(1, 2)), 1)
    return Rows(
        inputs={"image": np.rint(levels * (255 / LEVELS)).astype(np.uint8)[..., None]},
        targets={
            "digit": digit,
            "parity": digit % 2,
            "ink": ink.astype(np.float32)[:, None],
            "embedding": digit,  # vectors of the same digit belong together
        },
    )


def split(seed: int) -> Split:
    """70 % to learn from, 10 % to stop by, 20 % held out; each with the digits in equal shares."""
    everything = rows()
    digit = everything.targets["digit"]
    index = np.arange(len(everything))
    rest, test = train_test_split(index, test_size=0.2, random_state=seed, stratify=digit)
    train, validation = train_test_split(rest, test_size=0.125, random_state=seed, stratify=digit[rest])
    return Split(everything.take(train), everything.take(validation), everything.take(test))


def network(ink_location: float = 0.0, ink_scale: float = 1.0) -> MultiTaskNetwork:
    """The untrained network; location and scale of `ink` come with the weights."""
    trunk = ResNet((1, 1, 1), (32, 64, 128), in_channels=1, stem="small")
    heads = {name: build_head(SPEC.heads[name], trunk.out_features) for name in ("digit", "parity", "embedding")}
    heads["ink"] = Regression(trunk.out_features, location=ink_location, scale=ink_scale, hidden=64)
    return MultiTaskNetwork(trunk, heads)


def build(train: Rows) -> MultiTaskNetwork:
    """The untrained network with the scale of the training targets."""
    ink = train.targets["ink"]
    return network(float(np.mean(ink)), float(np.std(ink)))


def shift(inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
    """Move half the batch by one pixel sideways, where the edge it would lose is empty, so the ink stays."""
    image = inputs["image"]
    for step, edge in ((1, image[:, :, -1]), (-1, image[:, :, 0])):
        drawn = torch.rand(len(image), generator=generator).to(image.device) < 0.25
        chosen = drawn & (edge.flatten(1).amax(dim=1) == 0)
        image = torch.where(chosen[:, None, None, None], torch.roll(image, step, dims=2), image)
    return {**inputs, "image": image}, targets


MODEL = ReferenceModel(
    spec=SPEC,
    # `ink` asks for sums that no pretrained filter has: it needs the weight and the high rate. The rate rises for 18
    # epochs, in which validation gets worse: patience must not end the run there.
    recipe=Recipe(max_epochs=60, learning_rate=2e-2, patience=60, loss_weights={"embedding": 0.2, "ink": 10.0}),
    split=split,
    build=build,
    factory="polyhead.models.zoo.digits:network",
    augment=shift,
)
