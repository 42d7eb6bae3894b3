"""The residual network trunk (He et al. 2015, "Deep Residual Learning for Image Recognition").

Parameter names are those of torchvision's published state dicts (`conv1`, `bn1`, `layer1.0.conv1`, …, `downsample.0`),
so that pretrained weights load by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["BasicBlock", "ResNet", "resnet18"]


# Kernel, stride and padding of the first convolution.
STEMS = {"imagenet": (7, 2, 3), "small": (3, 1, 1)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity beside them."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
            if stride != 1 or in_channels != channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, channels, height / stride, width / stride]`."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(out)) + identity)
        return result


class ResNet(nn.Module):
    """Stages of residual blocks, each but the first at half the resolution, then the mean over the pixels.

    Args:
        blocks: blocks per stage.
        widths: channels per stage; the last is `out_features`.
        in_channels: channels of the image.
        stem: `imagenet` (7x7, stride 2, then max pooling: images of about 224 pixels) or `small` (3x3, stride 1).
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        stem: Literal["imagenet", "small"] = "imagenet",
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths) or not blocks:
            raise ValueError(f"blocks {tuple(blocks)} and widths {tuple(widths)}: give one of each per stage")
        if stem not in STEMS:
            raise ValueError(f"stem {stem!r} is not known (stems: {', '.join(STEMS)})")
        kernel, stride, padding = STEMS[stem]
        self.conv1 = nn.Conv2d(in_channels, widths[0], kernel, stride=stride, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        self.stages: list[str] = []
        channels = widths[0]
        for index, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layers = []
            for block in range(count):
                layers.append(BasicBlock(channels, width, stride=2 if index > 0 and block == 0 else 1))
                channels = width
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*layers))
        self.out_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """`float [batch, in_channels, height, width]` to `[batch, out_features]`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return torch.flatten(x.mean(dim=(2, 3)), 1)


def resnet18(in_channels: int = 3) -> ResNet:
    """ResNet-18: 11.2 M parameters, 512 features."""
    return ResNet((2, 2, 2, 2), in_channels=in_channels)
