"""Batch normalisation inside the convolution before it: the same numbers from fewer operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from polyhead.export.folding import NORM, folded
from polyhead.export.program import OWNERS
from tests.unit.export.networks import KIND, NUMBER, captured, picture, seeded, spec

IMAGE = {"image": {"kind": "image", "size": [6, 8]}}


def norms(module) -> int:
    return sum(node.target is NORM for node in module.graph.nodes)


def test_convolutions_with_and_without_bias_hold_what_followed_them():
    made = picture()
    module = folded(made.program)
    assert norms(made.program) == 2
    assert norms(module) == 0
    rows = made.rows(5)
    for actual, expected in zip(made.call(module, rows), made.eager(rows), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert not [name for name, _ in module.named_buffers() if "running" in name]


def test_the_program_itself_is_left_as_it_is():
    made = picture()
    before = made.program.code
    folded(made.program)
    made.program.recompile()
    assert made.program.code == before


def test_a_folded_weight_belongs_to_whom_its_layer_did():
    module = folded(picture().program)
    for node in module.graph.nodes:
        if node.op == "get_attr" and node.target.startswith("folded"):
            assert node.meta[OWNERS] == {"ground", "wet"}


class Unfolded(nn.Module):
    """Norms that no convolution can hold; subclasses are one case each."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def features(self, image: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        pooled = self.features(image).mean((2, 3))
        return {"kind": self.head(pooled), "size": pooled.sum(1, keepdim=True)}


class UsedTwice(Unfolded):
    def features(self, image):
        found = self.convolution(image)
        return found + self.norm(found)


class NotBehindIt(Unfolded):
    def features(self, image):
        return self.norm(self.convolution(image).relu())


class WeightOfRows(Unfolded):
    def features(self, image):
        kernel = self.convolution.weight * image.mean()
        return self.norm(nn.functional.conv2d(image, kernel))


@pytest.mark.parametrize("network", [UsedTwice, NotBehindIt, WeightOfRows])
def test_what_cannot_be_folded_stays(network: type[nn.Module]):
    made = captured(seeded(network), spec(IMAGE, {"kind": KIND, "size": NUMBER}))
    module = folded(made.program)
    assert norms(module) == 1
    rows = made.rows(2)
    for actual, expected in zip(made.call(module, rows), made.eager(rows), strict=True):
        torch.testing.assert_close(actual, expected)
