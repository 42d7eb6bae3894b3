"""A multi-task network by hard parameter sharing: one trunk, many heads (Caruana 1997)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

__all__ = ["POOLED", "Features", "MultiTaskNetwork", "NamedModules"]

# What a trunk returns: one tensor `[batch, features]`, or several by name.
Features = Tensor | dict[str, Tensor]
# The name of the features of a whole row, which a head takes that names no other.
POOLED = "pooled"
# The array that tells a text's tokens from its padding.
MASK = "attention_mask"


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
            returns the features: a tensor `[batch, features]`, or a dict of them by name (`pooled` for the whole row,
            `tokens`, `layer3`, …).
        heads: by head name, each takes features and returns that head's output. From a dict of features it takes
            those that its attribute `feature` names, one name or a tuple of names; without one, `pooled`.

    Raises:
        ValueError: there is no head.
        KeyError: in the forward pass, where a head asks for a feature that the trunk does not return.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("a multi-task network needs at least one head, got none")
        self.trunk = trunk
        self.heads = NamedModules(heads)

    def features(self, **inputs: Tensor) -> Features:
        """Run the trunk. Inputs by name, each `[batch, …]`; a text's mask joins named features as `mask`."""
        features: Features = self.trunk(*inputs.values()) if len(inputs) == 1 else self.trunk(**inputs)
        if isinstance(features, dict) and MASK in inputs:
            return {**features, "mask": inputs[MASK]}
        return features

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the trunk once and every head on its features. Returns each head's output by name."""
        return self.answers(self.features(**inputs))

    def answers(self, features: Features) -> dict[str, Tensor]:
        """Run every head on the trunk's features."""
        return {name: head(*_chosen(features, name, head)) for name, head in self.heads.items()}


def _chosen(features: Features, name: str, head: nn.Module) -> tuple[Tensor, ...]:
    """The features that a head takes."""
    wanted = getattr(head, "feature", POOLED)
    names: tuple[str, ...] = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if isinstance(features, Tensor):
        features = {POOLED: features}
    for feature in names:
        if feature not in features:
            raise KeyError(f"head {name!r} takes feature {feature!r}, the trunk returns {', '.join(sorted(features))}")
    return tuple(features[feature] for feature in names)
