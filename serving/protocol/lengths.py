"""The lengths of free dimensions: within their bounds, and one length for each name in a row."""

from __future__ import annotations

from collections.abc import Mapping

from polyhead.models.inputs import dimensions
from polyhead.models.spec import ModelSpec, TensorInput
from polyhead.serving.errors import InvalidInstance, Place
from polyhead.serving.request import Values

__all__ = ["require_lengths"]


def require_lengths(spec: ModelSpec, inputs: Mapping[str, Values], single: bool = False) -> None:
    """Refuse rows that a model with free dimensions does not take.

    Args:
        spec: the model's.
        inputs: every row of every input, each of its spec's dtype, rank and fixed dimensions.
        single: the body was one row, so there is no list to name a place in.

    Raises:
        InvalidInstance: a length is out of bounds, or is not what the same name has elsewhere in the row.
    """
    tensors = {name: value for name, value in spec.inputs.items() if isinstance(value, TensorInput) and value.free}
    if not tensors:
        return
    bounds = dimensions(spec.inputs)
    for row in range(len(inputs[next(iter(tensors))])):
        found: dict[str, tuple[int, str]] = {}
        for name, tensor in tensors.items():
            loc: Place = () if single else ("instances", row, name)
            for dimension, length in zip(tensor.shape, inputs[name][row].shape, strict=True):  # type: ignore[union-attr]
                if isinstance(dimension, str):
                    _require(
                        name, dimension, length, bounds[dimension], found.setdefault(dimension, (length, name)), loc
                    )


def _require(
    name: str, dimension: str, length: int, bounds: tuple[int, int], first: tuple[int, str], loc: Place
) -> None:
    least, greatest = bounds
    if not least <= length <= greatest:
        raise InvalidInstance(
            f"input {name!r}: {dimension} is {length}, the model takes {least} to {greatest}: "
            f"{'cut the row, or send it in parts' if length > greatest else 'send a longer row'}",
            loc,
        )
    if length != first[0]:
        where = "on another axis" if first[1] == name else f"in input {first[1]!r}"
        raise InvalidInstance(
            f"input {name!r}: {dimension} is {length}, and {first[0]} {where}: "
            "dimensions of one name must be of one length in a row",
            loc,
        )
