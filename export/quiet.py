"""The warnings that PyTorch's exporters raise about their own insides. Any other reaches the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

# Message (a pattern at its beginning) and class. Each was looked at: none says anything of the user's network.
KNOWN: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),  # PyTorch's own check, while it copies
    # Of torch.fx.GraphModule's own constructor, which the scripted program has.
    (r"The TorchScript type system doesn't support instance-level annotations", UserWarning),
    # Of a recurrent layer, which keeps its weights in a list too.
    (r"The tensor attributes self\..*_flat_weights\[\d+\] were assigned during export", UserWarning),
    (r".*torch\.jit\..*", DeprecationWarning),  # the format is deprecated: torchscript.py says what we make of it
)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the known warnings."""
    with warnings.catch_warnings():
        for message, category in KNOWN:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
