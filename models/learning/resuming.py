"""What a run began with: a checkpoint is continued with the same, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from polyhead.models.data import Rows, Split
from polyhead.models.faults import first_fault
from polyhead.models.recipe import Recipe
from polyhead.models.run import RunError
from polyhead.models.spec import ModelSpec, Strict

__all__ = ["Origin"]


class Origin(Strict):
    """What decides how a run goes: recipe, spec, data, and the name of the network's factory, not its code."""

    recipe: Recipe
    spec: ModelSpec
    factory: str
    data: str  # the sha256 of all rows, and of the tokenizers

    @classmethod
    def of(cls, spec: ModelSpec, split: Split, recipe: Recipe, factory: str, tokenizers: Mapping[str, bytes]) -> Self:
        """Of a run that is about to begin; tokenizers by input name, each the content of its file."""
        return cls(recipe=recipe, spec=spec, factory=factory, data=_digest(split, tokenizers))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a run that was broken off.

        Raises:
            RunError: the file is damaged.
        """
        try:
            data = json.loads(path.read_bytes())
            return cls.model_validate(data)
        except ValidationError as error:
            raise RunError(f"{path}: {first_fault(error, data)}: train without --resume") from None
        except (ValueError, OSError, RecursionError) as error:
            raise RunError(f"{path}: is not JSON ({error}): train without --resume") from None

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def require_same(self, earlier: Origin, folder: Path) -> None:
        """Refuse to go on with anything else.

        Raises:
            RunError: what differs, and both values.
        """
        before, now = earlier.recipe.model_dump(), self.recipe.model_dump()
        changes = [f"{key} was {before[key]!r}, is {now[key]!r}" for key in now if before[key] != now[key]]
        if earlier.spec != self.spec:
            changes.append("the spec is another")
        if earlier.factory != self.factory:
            changes.append(f"the factory was {earlier.factory!r}, is {self.factory!r}")
        if earlier.data != self.data:
            changes.append("the data (rows or tokenizers) is another")
        if changes:
            raise RunError(
                f"{folder}: --resume goes on with the same recipe and data alone, but {'; '.join(changes)}: "
                "change it back, or train without --resume"
            )


def _digest(split: Split, tokenizers: Mapping[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, data in sorted(tokenizers.items()):
        found.update(f"{name}/{len(data)}\n".encode() + data)
    for part, rows in split.parts().items():
        for name, column in sorted(_named(rows).items()):
            found.update(f"{part}/{name}/{column.dtype}/{column.shape}\n".encode())
            found.update(json.dumps(column.tolist()).encode() if column.dtype == object else column.tobytes())
    return found.hexdigest()


def _named(rows: Rows) -> dict[str, Any]:
    return {f"inputs/{n}": c for n, c in rows.inputs.items()} | {f"targets/{n}": c for n, c in rows.targets.items()}
