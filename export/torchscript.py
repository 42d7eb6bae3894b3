"""TorchScript: scripted and frozen. PyTorch deprecates the format; all that the export knows of it stands here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.jit._trace import TracerWarning

from polyhead.export.errors import ExportError
from polyhead.export.program import copied, rebuilt
from polyhead.export.quiet import quiet

__all__ = ["trace", "write"]


def write(program: fx.GraphModule) -> bytes:
    """Script, freeze and save a captured program.

    A program has no control flow, so it can be scripted; a trace of it would hold the example's sizes.

    Raises:
        ExportError: TorchScript knows no form for one of the operations.
    """
    module = copied(program)
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket  # TorchScript chooses overloads by itself
    module = rebuilt(module, module.graph)
    return _saved(lambda: torch.jit.script(module), "scripted as")


def trace(network: nn.Module, example: Sequence[Tensor]) -> bytes:
    """Trace, freeze and save a network that torch.export refuses.

    A trace follows the example: what depends on data or sizes in Python is not in it, which the parity gate shows on
    other rows.

    Args:
        network: in evaluation.
        example: inputs of two rows or more.

    Raises:
        ExportError: it cannot be traced.
    """
    return _saved(lambda: torch.jit.trace(network, tuple(example), strict=False, check_trace=False), "traced to")  # type: ignore[no-untyped-call]


def _saved(make: Callable[[], Any], how: str) -> bytes:
    try:
        with quiet(), warnings.catch_warnings(), torch.no_grad():
            # Of what a trace does not hold: the parity gate turns what shows on its rows into errors.
            warnings.filterwarnings("ignore", category=TracerWarning)
            made = make()
            buffer = io.BytesIO()
            torch.jit.save(torch.jit.freeze(made.eval()), buffer)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"the network cannot be {how} TorchScript: {lines[0]}") from error
    return buffer.getvalue()
