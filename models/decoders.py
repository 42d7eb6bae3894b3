"""Decoders: from a convolutional trunk's maps back to the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Segmentation"]


class Segmentation(nn.Module):
    """Logits per pixel from maps of several resolutions: a feature pyramid, merged into its finest map.

    Every map is projected to one width and added to the next coarser one, enlarged (Lin et al. 2017, "Feature Pyramid
    Networks for Object Detection"); the finest is smoothed, classified, and enlarged to the image's size.

    Args:
        channels: of each map, from fine to coarse.
        labels: how many.
        size: height and width of the image, in pixels.
        feature: the maps' names, from fine to coarse; `layer1`, `layer2`, … where none are given.
        width: channels inside the decoder.

    Raises:
        ValueError: there is no map, or not one name for each.
    """

    def __init__(
        self,
        channels: Sequence[int],
        labels: int,
        size: tuple[int, int],
        feature: Sequence[str] | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        names = [f"layer{index + 1}" for index in range(len(channels))] if feature is None else feature
        if isinstance(names, str) or len(names) != len(channels) or not channels:
            raise ValueError(f"channels {tuple(channels)} and feature {feature!r}: give one of each per map")
        self.feature = tuple(names)
        self.size = size
        self.lateral = nn.ModuleList(nn.Conv2d(depth, width, 1) for depth in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.classify = nn.Conv2d(width, labels, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps `[batch, channels, height, width]` from fine to coarse to logits `[batch, labels, *size]`."""
        merged: Tensor | None = None
        for lateral, found in zip(reversed(self.lateral), reversed(maps), strict=True):
            own = lateral(found)
            merged = own if merged is None else own + functional.interpolate(merged, size=own.shape[-2:])
        logits = self.classify(self.smooth(merged))
        return functional.interpolate(logits, size=self.size, mode="bilinear", align_corners=False)
