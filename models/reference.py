"""What a reference model is made of; each stands in one file of `polyhead.models.zoo`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polyhead.models import zoo
from polyhead.models.data import Rows, Split
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.run import Recipe, Run
from polyhead.models.spec import ModelSpec, SpecError
from polyhead.models.training import Augment, train

__all__ = ["ReferenceModel", "load", "names"]


@dataclass(frozen=True)
class ReferenceModel:
    """A model that Polyhead trains from data it ships or makes."""

    spec: ModelSpec
    recipe: Recipe
    split: Callable[[int], Split]  # by seed
    build: Callable[[Rows], MultiTaskNetwork]  # given the training rows
    factory: str  # module:function that returns the untrained network
    augment: Augment | None = None

    def train(self, out: Path, recipe: Recipe | None = None) -> Run:
        """Train into a run directory."""
        recipe = recipe or self.recipe
        return train(self.spec, self.build, self.split(recipe.seed), recipe, out, self.factory, self.augment)


def names() -> tuple[str, ...]:
    """The reference models there are."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(zoo.__path__)))


def load(name: str) -> ReferenceModel:
    """A reference model by name.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in names():
        raise SpecError(f"no reference model {name!r} (there are: {', '.join(names())})")
    model = importlib.import_module(f"{zoo.__name__}.{name}").MODEL
    assert isinstance(model, ReferenceModel)
    return model
