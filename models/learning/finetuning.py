"""Which parts of a network learn, when, and at which rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn

from polyhead.models.network import NamedModules
from polyhead.models.recipe import Recipe, RecipeError

__all__ = ["Finetuning", "heads_of", "trunk_of"]


@runtime_checkable
class _Blocks(Protocol):
    """A trunk that knows its parts, from bottom to top."""

    def blocks(self) -> list[nn.Module]: ...


def trunk_of(network: nn.Module) -> nn.Module | None:
    """The network's trunk, None where it has none by that name."""
    trunk = getattr(network, "trunk", None)
    return trunk if isinstance(trunk, nn.Module) else None


def heads_of(network: nn.Module) -> dict[str, nn.Module]:
    """The network's heads by name; empty where it keeps none as `heads`."""
    heads = getattr(network, "heads", None)
    return dict(heads.items()) if isinstance(heads, NamedModules | nn.ModuleDict) else {}


@dataclass(frozen=True)
class _Block:
    """A part of the trunk: what it normalises and drops with, and the parameters that no part below it has."""

    module: nn.Module
    parameters: list[nn.Parameter]


class Finetuning:
    """A recipe's freezing, unfreezing and rates, applied to a network.

    Args:
        network: any module; freezing, unfreezing and rates of the trunk need one by the name `trunk`.
        recipe: of the run.
        heads: those that are trained; the others' modules are frozen.

    Raises:
        RecipeError: the recipe asks for something that this network does not have.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, heads: Sequence[str]) -> None:
        self.network, self.recipe = network, recipe
        self.trunk = trunk_of(network)
        _require_trunk(self.trunk, recipe)
        self.blocks = _blocks(self.trunk) if self.trunk is not None else []
        self._frozen_modules = [module for name, module in heads_of(network).items() if name not in heads]
        self._frozen_modules += self._by_prefix()
        if recipe.freeze_trunk and self.trunk is not None:
            self._frozen_modules.append(self.trunk)
        frozen = {id(parameter) for module in self._frozen_modules for parameter in module.parameters()}
        for name, parameter in network.named_parameters():
            if id(parameter) in frozen or any(_under(name, prefix) for prefix in recipe.freeze):
                parameter.requires_grad_(False)
        self._learning = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
        if not self._learning:
            raise RecipeError("the recipe freezes every parameter: there is nothing left to learn")

    def begin(self, epoch: int) -> None:
        """Freeze and unfreeze for an epoch, counted from 0: parameters, and modes of normalisation and dropout."""
        self.network.train()
        asleep = self.blocks[: len(self.blocks) - self._awake(epoch)]
        if asleep and self.trunk is not None:
            self.trunk.eval()
            for block in self.blocks[len(asleep) :]:
                block.module.train()
        sleeping = {id(parameter) for block in asleep for parameter in block.parameters}
        for parameter in self.network.parameters():
            if id(parameter) in self._learning:
                parameter.requires_grad_(id(parameter) not in sleeping)
        for module in self._frozen_modules:
            module.eval()

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of an optimiser, each with its name and rate; without what is frozen for good.

        Blocks of the trunk have groups of their own where their rates differ or they unfreeze one by one.
        """
        recipe = self.recipe
        rate = recipe.trunk_learning_rate or recipe.learning_rate
        inside = {id(parameter) for block in self.blocks for parameter in block.parameters}
        others = [parameter for parameter in self.network.parameters() if id(parameter) not in inside]
        groups: list[dict[str, Any]] = [
            {"name": "heads" if self.blocks else "network", "params": others, "lr": recipe.learning_rate}
        ]
        if recipe.layer_decay == 1 and recipe.unfreeze is None:
            together = [parameter for block in self.blocks for parameter in block.parameters]
            groups.append({"name": "trunk", "params": together, "lr": rate})
        else:
            for index, block in reversed(list(enumerate(self.blocks))):
                depth = len(self.blocks) - 1 - index
                groups.append(
                    {"name": f"trunk.{index}", "params": block.parameters, "lr": rate * recipe.layer_decay**depth}
                )
        for group in groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in self._learning]
        return [group for group in groups if group["params"]]

    def parameters(self) -> list[nn.Parameter]:
        """All that may learn at some time."""
        return [parameter for parameter in self.network.parameters() if id(parameter) in self._learning]

    def counts(self) -> Mapping[str, Any]:
        """How many parameters there are: `total`, `trunk`, `heads` by name, and `trainable` at some time."""
        return {
            "total": _count(self.network),
            "trunk": _count(self.trunk) if self.trunk is not None else 0,
            "heads": {name: _count(head) for name, head in heads_of(self.network).items()},
            "trainable": sum(parameter.numel() for parameter in self.parameters()),
        }

    def _awake(self, epoch: int) -> int:
        """How many blocks learn, from the top."""
        unfreeze = self.recipe.unfreeze
        return len(self.blocks) if unfreeze is None else unfreeze.learning(epoch, len(self.blocks))

    def _by_prefix(self) -> Iterator[nn.Module]:
        names = [name for name, _ in self.network.named_parameters()]
        for prefix in self.recipe.freeze:
            if not any(_under(name, prefix) for name in names):
                raise RecipeError(f"freeze: no parameter's name begins with {prefix!r} (the first is {names[0]!r})")
            yield from (module for name, module in self.network.named_modules() if _under(name, prefix))


def _under(name: str, prefix: str) -> bool:
    """Whether a dotted name is the prefix's, or of a part of it."""
    return name == prefix or name.startswith(f"{prefix}.")


def _blocks(trunk: nn.Module) -> list[_Block]:
    """The trunk's blocks from bottom to top; one block where it names none. The bottom has what no block has."""
    modules = trunk.blocks() if isinstance(trunk, _Blocks) else [trunk]
    seen: set[int] = set()
    blocks = []
    for module in modules:
        own = [parameter for parameter in module.parameters() if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in own}
        blocks.append(_Block(module, own))
    blocks[0].parameters.extend(parameter for parameter in trunk.parameters() if id(parameter) not in seen)
    return blocks


def _require_trunk(trunk: nn.Module | None, recipe: Recipe) -> None:
    asked = {
        "freeze_trunk": recipe.freeze_trunk,
        "unfreeze": recipe.unfreeze is not None,
        "trunk_learning_rate": recipe.trunk_learning_rate is not None,
        "layer_decay": recipe.layer_decay != 1,
    }
    wanted = [key for key, value in asked.items() if value]
    if wanted and trunk is None:
        raise RecipeError(
            f"{wanted[0]}: the network has no module by the name trunk: name it so, or freeze parameters by name"
        )
    in_blocks = [key for key in wanted if key in ("unfreeze", "layer_decay")]
    if in_blocks and not isinstance(trunk, _Blocks):
        raise RecipeError(
            f"{in_blocks[0]}: the trunk ({type(trunk).__name__}) has no method blocks(): "
            "give it one that returns its parts from bottom to top"
        )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
