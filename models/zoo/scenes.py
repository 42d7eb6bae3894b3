"""Small generated pictures: segmentation, classification, multilabel and regression on one residual trunk.

The pictures are made by `polyhead.models.zoo.data.scenes`. The segmentation head reads the trunk's maps of four
resolutions, the others the mean over the last.
"""

from __future__ import annotations

from polyhead.models.augment import Compose, HorizontalFlip, Jitter
from polyhead.models.data import Rows, Split
from polyhead.models.decoders import Segmentation
from polyhead.models.heads import Logits, Regression
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.resnet import ResNet
from polyhead.models.zoo.data.scenes import BACKDROPS, REGIONS, SHAPES, SIZE, Scenes
from polyhead.models.zoo.data.scenes import split as scenes

__all__ = ["MODEL", "network", "split"]

SPEC = ModelSpec.parse(
    {
        "name": "scenes",
        "version": "1.0",
        "description": "Shapes before a backdrop.",
        "inputs": {
            "image": {
                "kind": "image",
                "size": [SIZE, SIZE],
                "channels": "rgb",
                "resize": "none",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
            }
        },
        "heads": {
            "region": {"kind": "segmentation", "labels": list(REGIONS)},
            "backdrop": {"kind": "classification", "labels": list(BACKDROPS)},
            "present": {"kind": "multilabel", "labels": list(SHAPES)},
            "count": {"kind": "regression", "unit": "shapes"},
        },
    }
)


def rows(made: Scenes) -> Rows:
    """Scenes as training rows."""
    return Rows(
        inputs={"image": made.image},
        targets={"region": made.region, "backdrop": made.backdrop, "present": made.present, "count": made.count},
    )


def split(seed: int) -> Split:
    """Rows to learn from, to stop by, and held out."""
    train, validation, test = scenes(seed)
    return Split(rows(train), rows(validation), rows(test))


def network() -> MultiTaskNetwork:
    """The untrained network."""
    trunk = ResNet((1, 1, 1, 1), (16, 32, 64, 128), stem="small", maps=True)
    return MultiTaskNetwork(
        trunk,
        {
            "region": Segmentation(list(trunk.channels.values()), len(REGIONS), (SIZE, SIZE), width=24),
            "backdrop": Logits(trunk.out_features, len(BACKDROPS)),
            "present": Logits(trunk.out_features, len(SHAPES)),
            "count": Regression(trunk.out_features, location=2.4, scale=1.2, hidden=64),  # 0 to 4 by construction
        },
    )


MODEL = ReferenceModel(
    spec=SPEC,
    # Most pixels are background: without the weight, the heads of the whole picture lead.
    recipe=Recipe(max_epochs=20, batch_size=32, learning_rate=4e-3, patience=20, loss_weights={"region": 5.0}),
    split=split,
    build=lambda _train: network(),
    factory="polyhead.models.zoo.scenes:network",
    augment=Compose(HorizontalFlip("image", masks=("region",)), Jitter("image", 0.15, 0.15)),
)
