"""Training on images, with a mask that an augmentation turns along."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from polyhead.models.augment import HorizontalFlip
from polyhead.models.data import Rows, Split
from polyhead.models.decoders import Segmentation
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.spec import ModelSpec
from polyhead.models.training import train
from polyhead.models.trunks.resnet import ResNet

SPEC = ModelSpec.parse(
    {
        "name": "bars",
        "version": "1.0",
        "inputs": {"image": {"kind": "image", "size": [12, 16], "channels": "gray", "mean": [0.3], "std": [0.4]}},
        "heads": {
            "mask": {"kind": "segmentation", "labels": ["dark", "bright"]},
            "bright": {"kind": "classification", "labels": ["few", "many"]},
        },
    }
)


def rows(count, seed):
    """One bright rectangle in noise; the mask of every fourth row is missing, and one pixel of the others."""
    random = np.random.default_rng(seed)
    mask = np.zeros((count, 12, 16), np.int64)
    for picture in mask:
        top, left, height, width = random.integers(0, 6), random.integers(0, 8), *random.integers(3, 8, 2)
        picture[top : top + height, left : left + width] = 1
    image = np.clip(mask * 120 + random.normal(60, 30, mask.shape), 0, 255).astype(np.uint8)[..., None]
    bright = (mask.mean(axis=(1, 2)) > 0.12).astype(np.int64)
    mask[:, 0, 0] = -1
    mask[::4] = -1
    return Rows({"image": image}, {"mask": mask, "bright": bright})


SPLIT = Split(rows(160, 0), rows(40, 1), rows(40, 2))


def network():
    trunk = ResNet((1, 1), (8, 16), in_channels=1, stem="small", maps=True)
    heads = {
        "mask": Segmentation(list(trunk.channels.values()), 2, (12, 16), width=8),
        "bright": build_head(SPEC.heads["bright"], trunk.out_features),
    }
    return MultiTaskNetwork(trunk, heads)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = Recipe(max_epochs=8, batch_size=20, learning_rate=2e-2, class_weights="balanced", monitor="mask/iou")
    flip = HorizontalFlip("image", ("mask",))
    return train(SPEC, lambda _: network(), SPLIT, recipe, tmp_path_factory.mktemp("run"), "bars:network", flip)


def test_masks_and_labels_are_learnt(run):
    assert run.record.metrics["mask"]["iou"] > 0.8
    assert run.record.metrics["bright"]["accuracy"] > 0.8


def test_the_epoch_of_the_best_masks_is_kept(run):
    assert run.record.monitor == "mask/iou"
    assert run.record.score > 0.8


def test_predictions_are_a_score_per_label_and_pixel_beside_the_mask(run):
    found = load_file(run.predictions)
    assert found["mask.outputs"].shape == (40, 2, 12, 16)
    np.testing.assert_array_equal(found["mask.targets"], SPLIT.test.targets["mask"])
    known = found["mask.targets"] >= 0
    agree = found["mask.outputs"].argmax(axis=1)[known] == found["mask.targets"][known]
    assert agree.mean() == pytest.approx(run.record.metrics["mask"]["pixel_accuracy"], abs=1e-4)
