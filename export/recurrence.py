"""LSTM and GRU as one operation over sequences of any length, while a network is captured.

PyTorch tells the shapes of a recurrent layer by unrolling it, step after step of the example, so that a captured
program has as many steps as the example, for ever. The shapes are known without that. `nn.RNN` stays as it is: the ONNX
exporter knows no form of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import meta_table
from torch._ops import OperatorBase

__all__ = ["whole_sequences"]

aten = torch.ops.aten
OPERATIONS = (aten.lstm.input, aten.gru.input)


@contextmanager
def whole_sequences() -> Iterator[None]:
    """Capture recurrent layers whole. Only shapes are computed here: run no network inside."""
    kernels = {operation: dict(operation.py_kernels) for operation in OPERATIONS}
    shapes: dict[OperatorBase, Callable[..., Any]] = {o: meta_table[o] for o in OPERATIONS if o in meta_table}
    try:
        for operation in OPERATIONS:
            operation.py_kernels.update(dict.fromkeys(operation.py_kernels, _shapes))
            operation._dispatch_cache.clear()
            meta_table[operation] = _shapes
        yield
    finally:
        for operation in OPERATIONS:
            operation.py_kernels.clear()
            operation.py_kernels.update(kernels[operation])
            operation._dispatch_cache.clear()
            del meta_table[operation]
        meta_table.update(shapes)


def _shapes(
    source: Tensor,
    hidden: Tensor | Sequence[Tensor],
    _weights: Sequence[Tensor],
    _has_biases: bool,
    _layers: int,
    _dropout: float,
    _training: bool,
    bidirectional: bool,
    _batch_first: bool,
) -> tuple[Tensor, ...]:
    """Empty outputs `[batch, steps, directions * features]`, or the first two axes exchanged, and last states."""
    states: Sequence[Any] = [hidden] if isinstance(hidden, Tensor) else hidden
    features = states[0].shape[-1] * (2 if bidirectional else 1)
    return (source.new_empty((*source.shape[:-1], features)), *(torch.empty_like(state) for state in states))
