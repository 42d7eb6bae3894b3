"""A multi-task network by hard parameter sharing: one trunk, many heads (Caruana 1997)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

__all__ = ["MultiTaskNetwork", "NamedModules"]


class NamedModules(nn.Module):
    """Modules by any name that a spec allows.

    A ModuleDict stores them as attributes, and so refuses names of its own methods (`type`, `values`, `training`); the
    exporters refuse names that are no identifiers. Such a module is stored under an escaped name. Names of a spec begin
    with a letter, so an escaped name, which begins with an underscore, is never another module's.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(modules)
        for name, module in modules.items():
            self.add_module(_attribute(name), module)

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(_attribute(name))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def keys(self) -> Iterator[str]:
        """The names, in the order given."""
        return iter(self.names)

    def values(self) -> Iterator[nn.Module]:
        """The modules, in the order given."""
        return (self[name] for name in self.names)

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and module, in the order given."""
        return ((name, self[name]) for name in self.names)


def _attribute(name: str) -> str:
    plain = name.isidentifier() and not hasattr(NamedModules, name) and name not in ("training", "names")
    return name if plain else f"_{name.replace('-', '_x2d_')}"


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
