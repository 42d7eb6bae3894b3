"""`X-Polyhead-Heads`: the heads that a request wants whose body is no JSON, with commas between."""

from __future__ import annotations

from collections.abc import Mapping

from polyhead.models.spec import ModelSpec
from polyhead.serving.request import choose_heads

__all__ = ["HEADS_HEADER", "named_heads"]

HEADS_HEADER = "x-polyhead-heads"


def named_heads(spec: ModelSpec, headers: Mapping[str, str]) -> tuple[str, ...]:
    """The heads that a request's headers name; all where they name none.

    Raises:
        UnknownHead: one is not the model's.
    """
    names = headers.get(HEADS_HEADER)
    return choose_heads(spec, None if names is None else [name.strip() for name in names.split(",")])
