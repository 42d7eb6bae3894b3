"""What happens to inputs inside the graph, so that every client and runtime sends the same raw values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from polyhead.models.network import NamedModules
from polyhead.models.spec import ImageInput, InputSpec

__all__ = ["ImagePreprocess", "Preprocess"]


class ImagePreprocess(nn.Module):
    """`uint8 [batch, height, width, channels]` to normalised `float32 [batch, channels, height, width]`."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ImageInput) -> None:
        super().__init__()
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            full = values * spec.depth if len(values) == 1 else values
            self.register_buffer(name, torch.tensor(full, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels 0-255 to `(pixel / 255 - mean) / std` per channel."""
        scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        result: Tensor = (scaled - self.mean) / self.std
        return result


class Preprocess(nn.Module):
    """What the graph takes to what the network takes: images normalised, anything else as it is."""

    def __init__(self, inputs: Mapping[str, InputSpec]) -> None:
        super().__init__()
        self.images = NamedModules(
            {name: ImagePreprocess(spec) for name, spec in inputs.items() if isinstance(spec, ImageInput)}
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw arrays by name to what the network's forward takes, by name."""
        return {name: self.images[name](array) if name in self.images else array for name, array in inputs.items()}
