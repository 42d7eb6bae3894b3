"""What an export refuses, and why."""

from __future__ import annotations

from polyhead.serving.errors import PolyheadError

__all__ = ["ExportError", "ParityError"]


class ExportError(PolyheadError):
    """A network that does not fit its spec, or cannot be written in a format."""


class ParityError(ExportError):
    """A graph that does not compute what eager PyTorch computes. Names head, graph, shape and error."""
