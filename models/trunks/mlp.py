"""The multi-layer perceptron trunk: layers shared by every task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear, ReLU and dropout, once per width, on the flattened input.

    Args:
        in_features: values per row after flattening.
        widths: the width of each layer; the last is `out_features`.
        dropout: probability of dropping a feature while training.
    """

    def __init__(self, in_features: int, widths: Sequence[int] = (256, 256), dropout: float = 0.0) -> None:
        super().__init__()
        if not widths:
            raise ValueError("an MLP trunk needs at least one width, got none")
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers)
        self.out_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, …]` to `[batch, out_features]`."""
        features: Tensor = self.layers(x)
        return features
