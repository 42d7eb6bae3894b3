"""A head's leaf in whatever a network returns: dict, tuple, list, dataclass, or a nesting of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polyhead.models.spec import HeadSpec, SpecError

__all__ = ["describe", "leaf"]


def leaf(output: Any, head: str, spec: HeadSpec) -> Tensor:
    """The tensor of one head: by the spec's `output` path, or by the head's own name.

    Raises:
        SpecError: there is none; the message shows the tree that was found.
    """
    path = [head] if spec.output is None else [part for part in spec.output.split(".") if part]
    node = output
    for part in path:
        children = _children(node)
        if part not in children:
            raise SpecError(
                f"head {head!r} is in the spec, but the network returns no {'.'.join(path)!r}; "
                f"it returns {describe(output)}: "
                f"rename the head, remove it, or name its place with output:"
            )
        node = children[part]
    if not isinstance(node, Tensor):
        raise SpecError(f"head {head!r}: {'.'.join(path) or 'the output'} is no tensor but {describe(node)}")
    return node


def describe(node: Any) -> str:
    """A tree of outputs in one line: `{digit: [2, 10], ink: [2, 1]}`."""
    if isinstance(node, Tensor):
        return f"{str(node.dtype).removeprefix('torch.')}{list(node.shape)}"
    children = _children(node)
    if not children:
        return type(node).__name__
    brackets = ("{", "}") if isinstance(node, Mapping) or dataclasses.is_dataclass(node) else ("(", ")")
    return brackets[0] + ", ".join(f"{key}: {describe(child)}" for key, child in children.items()) + brackets[1]


def _children(node: Any) -> dict[str, Any]:
    """What a node holds, by key, position or field name."""
    if isinstance(node, Mapping):
        return {str(key): value for key, value in node.items()}
    if isinstance(node, tuple | list):
        named = getattr(node, "_fields", None)
        return {str(index): value for index, value in enumerate(node)} | dict(zip(named or (), node, strict=False))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return {}
