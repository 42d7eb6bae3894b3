"""TorchScript: traced and frozen. PyTorch deprecates the format; all that the export knows of it stands here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph

__all__ = ["write"]


def write(graph: FusedGraph, example: Sequence[Tensor]) -> bytes:
    """Trace, freeze and save.

    Args:
        graph: the canonical graph, in evaluation.
        example: inputs of two rows or more. A trace follows the example: what depends on data in Python control flow is
            not in it, which the parity gate shows on other rows.

    Raises:
        ExportError: the network cannot be traced.
    """
    if any(module.training for module in graph.modules()):
        raise ExportError("the network is in training mode: call eval() in its factory, not train()")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecation, and tracer warnings that the parity gate turns into errors
            traced = torch.jit.trace(graph, tuple(example), strict=False, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced.eval())
            buffer = io.BytesIO()
            torch.jit.save(frozen, buffer)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"the network cannot be traced to TorchScript: {lines[0]}") from error
    return buffer.getvalue()
