"""What a model is made of that one command trains; Polyhead's own stand in one file each of `polyhead.models.zoo`."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from polyhead.models import zoo
from polyhead.models.augment import Augment
from polyhead.models.data import Rows, Split
from polyhead.models.importing import imported
from polyhead.models.recipe import Recipe
from polyhead.models.run import Run
from polyhead.models.spec import ModelSpec, SpecError
from polyhead.models.training import Say, train

__all__ = ["ReferenceModel", "load", "names"]


@dataclass(frozen=True)
class ReferenceModel:
    """A model with the data it is trained on: Polyhead's own, or a user's.

    Attributes:
        spec: inputs and heads.
        recipe: how it is trained where nothing else is said.
        split: the rows, by seed.
        build: the network, given the training rows.
        factory: `module:function` or `path/to/file.py:function` that returns the untrained network, for the export.
        augment: changes a training batch.
        tokenizers: the `tokenizer.json` of each text input.
    """

    spec: ModelSpec
    recipe: Recipe
    split: Callable[[int], Split]
    build: Callable[[Rows], nn.Module]
    factory: str
    augment: Augment | None = None
    tokenizers: Callable[[], Mapping[str, Path]] | None = None

    def train(self, out: Path, recipe: Recipe | None = None, resume: bool = False, say: Say = lambda _: None) -> Run:
        """Train into a run directory; see `polyhead.models.training.train`."""
        recipe = recipe or self.recipe
        return train(
            self.spec,
            self.build,
            self.split(recipe.seed),
            recipe,
            out,
            self.factory,
            self.augment,
            self.tokenizers() if self.tokenizers is not None else {},
            resume,
            say,
        )


def names() -> tuple[str, ...]:
    """Polyhead's own models: the modules of the zoo that define a MODEL."""
    modules = pkgutil.iter_modules(zoo.__path__)
    return tuple(sorted(m.name for m in modules if not m.ispkg and _defines_model(f"{zoo.__name__}.{m.name}")))


def load(name: str) -> ReferenceModel:
    """A model by its name in the zoo, or by the place of a `ReferenceModel` of the user's own.

    Args:
        name: `digits`, `package.module:MODEL` or `path/to/file.py:MODEL`. A factory whose file is given as a relative
            path is looked for beside the model's own file.

    Raises:
        SpecError: there is none of that name.
    """
    if ":" in name:
        return _own(name)
    if name not in names():
        raise SpecError(
            f"no reference model {name!r} (there are: {', '.join(names())}): "
            "give one of them, or path/to/file.py:MODEL for a model of your own"
        )
    model = importlib.import_module(f"{zoo.__name__}.{name}").MODEL
    assert isinstance(model, ReferenceModel)
    return model


def _own(name: str) -> ReferenceModel:
    model = imported(name, "model")
    if not isinstance(model, ReferenceModel):
        raise SpecError(
            f"model {name!r} is of type {type(model).__name__}: make it a polyhead.models.reference.ReferenceModel"
        )
    place, _, function = model.factory.rpartition(":")
    if not place.endswith(".py") or Path(place).is_absolute():
        return model
    own = Path(name.rpartition(":")[0])
    folder = own.resolve().parent if own.suffix == ".py" else Path.cwd()
    return dataclasses.replace(model, factory=f"{folder / place}:{function}")


def _defines_model(module: str) -> bool:
    """Whether a module's text assigns MODEL; it is not imported for that, which takes seconds."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return False
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return any(isinstance(target, ast.Name) and target.id == "MODEL" for target in targets)
