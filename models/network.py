"""A multi-task network by hard parameter sharing: one trunk, many heads (Caruana 1997)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["MultiTaskNetwork", "NamedModules"]


class NamedModules(nn.ModuleDict):
    """Modules by any name a spec allows. A plain ModuleDict refuses names of its own methods: `type`, `values`, …"""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module without looking for an attribute of that name."""
        assert module is not None
        self._modules[name] = module


class MultiTaskNetwork(nn.Module):
    """One trunk feeds every head; the trunk runs once per forward pass.

    Args:
        trunk: takes the model's inputs, positionally where there is one, by name where there are several;
            returns the features `[batch, features]`.
        heads: by head name, each takes the features and returns that head's output.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("a multi-task network needs at least one head, got none")
        self.trunk = trunk
        self.heads = NamedModules(heads)

    def features(self, **inputs: Tensor) -> Tensor:
        """Run the trunk. Inputs by name, each `[batch, …]`; returns `[batch, features]`."""
        features: Tensor = self.trunk(*inputs.values()) if len(inputs) == 1 else self.trunk(**inputs)
        return features

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the trunk once and every head on its features. Returns each head's output by name."""
        features = self.features(**inputs)
        return {name: head(features) for name, head in self.heads.items()}
