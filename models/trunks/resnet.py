"""The residual network trunk (He et al. 2015, "Deep Residual Learning for Image Recognition").

Parameter names are those of torchvision's published state dicts (`conv1`, `bn1`, `layer1.0.conv1`, …, `downsample.0`),
so that pretrained weights load by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from polyhead.models.trunks.pretrained import PretrainedError, load_by_name, read_safetensors

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "resnet18", "resnet34", "resnet50"]


# Kernel, stride and padding of the first convolution.
STEMS = {"imagenet": (7, 2, 3), "small": (3, 1, 1)}


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """What makes the identity fit a block's output; None where it fits."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity beside them."""

    expansion = 1  # output channels per `channels`

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, channels, height / stride, width / stride]`."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(out)) + identity)
        return result


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the identity beside them; four times as many channels out as in the middle.

    The 3x3 convolution has the stride, as in torchvision's weights ("ResNet V1.5"); in the paper the first 1x1 has it.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, height, width]` to `[batch, 4 * channels, height / stride, width / stride]`."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        result: Tensor = self.relu(self.bn3(self.conv3(out)) + identity)
        return result


class ResNet(nn.Module):
    """Stages of residual blocks, each but the first at half the resolution, then the mean over the pixels.

    Args:
        blocks: blocks per stage.
        widths: channels per stage, before the block's expansion.
        in_channels: channels of the image.
        stem: `imagenet` (7x7, stride 2, then max pooling: images of about 224 pixels) or `small` (3x3, stride 1).
        block: the kind of the residual blocks.
        maps: whether forward returns every stage's map beside the pooled features.

    Attributes:
        out_features: channels of the last stage.
        channels: of each stage's map, by the stage's name (`layer1`, …).
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        stem: Literal["imagenet", "small"] = "imagenet",
        *,
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock,
        maps: bool = False,
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
        self.maps = maps
        self.channels: dict[str, int] = {}
        channels = widths[0]
        for index, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layers = []
            for position in range(count):
                layers.append(block(channels, width, stride=2 if index > 0 and position == 0 else 1))
                channels = width * block.expansion
            stage = f"layer{index + 1}"
            self.channels[stage] = channels
            self.add_module(stage, nn.Sequential(*layers))
        self.out_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """`float [batch, in_channels, height, width]` to `[batch, out_features]`.

        With `maps` to a dict: `pooled` `[batch, out_features]`, and each stage's map by its name, the first `layer1`
        `[batch, channels["layer1"], height / 4, width / 4]` (with the small stem `height, width`).
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = {}
        for stage in self.channels:
            x = maps[stage] = self.get_submodule(stage)(x)
        pooled = torch.flatten(x.mean(dim=(2, 3)), 1)
        return {"pooled": pooled, **maps} if self.maps else pooled

    def blocks(self) -> list[nn.Module]:
        """From bottom to top: the first convolution with its normalisation, then each stage."""
        return [nn.Sequential(self.conv1, self.bn1), *(self.get_submodule(stage) for stage in self.channels)]

    def load_torchvision(self, weights: Mapping[str, Tensor] | Path | str) -> None:
        """Take the weights of torchvision's network of the same size; its classifier (`fc`) is left out.

        Args:
            weights: torchvision's state dict, or a safetensors file of it.

        Raises:
            PretrainedError: a tensor is missing, unexpected or of another shape; nothing is loaded then.
        """
        source = "the state dict" if isinstance(weights, Mapping) else str(weights)
        tensors = weights if isinstance(weights, Mapping) else read_safetensors(Path(weights))
        first, wanted = tensors.get("conv1.weight"), self.conv1.in_channels
        if first is not None and first.dim() == 4 and first.shape[1] != wanted:
            raise PretrainedError(
                f"{source}: 'conv1.weight' is for images of {first.shape[1]} channels, this network takes {wanted}: "
                f"make it with in_channels={first.shape[1]} and give it such images"
            )
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
        # Counts the batches seen, which nothing here reads; weights older than torch 0.4.1 have none.
        load_by_name(self, kept, source, optional=".num_batches_tracked")


def resnet18(in_channels: int = 3, *, maps: bool = False) -> ResNet:
    """ResNet-18: 11.2 M parameters, 512 features."""
    return ResNet((2, 2, 2, 2), in_channels=in_channels, maps=maps)


def resnet34(in_channels: int = 3, *, maps: bool = False) -> ResNet:
    """ResNet-34: 21.3 M parameters, 512 features."""
    return ResNet((3, 4, 6, 3), in_channels=in_channels, maps=maps)


def resnet50(in_channels: int = 3, *, maps: bool = False) -> ResNet:
    """ResNet-50: 23.5 M parameters, 2 048 features."""
    return ResNet((3, 4, 6, 3), in_channels=in_channels, block=Bottleneck, maps=maps)
