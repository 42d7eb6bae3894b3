"""What the trunk and each head weigh: their parameters, and the operations that one row costs."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from polyhead.export.program import OWNERS, is_call
from polyhead.serving.manifest import Part

__all__ = ["parts"]

TRUNK = "trunk"
# PyTorch counts nothing of these: each step multiplies with every weight matrix.
RECURRENT = (
    torch.ops.aten.lstm.input,
    torch.ops.aten.gru.input,
    torch.ops.aten.rnn_tanh.input,
    torch.ops.aten.rnn_relu.input,
)


def parts(module: fx.GraphModule, heads: Sequence[str], row: Sequence[Tensor]) -> dict[str, Part]:
    """Parameters and floating-point operations by part.

    Args:
        module: a captured program, nothing merged.
        heads: its heads; of one head, everything is the head's.
        row: one row of every array it takes, by position.

    Returns:
        `trunk` (where there are several heads), and `heads/<head>`. Products and convolutions are counted, as PyTorch
        does it; a multiplication and an addition are two operations.
    """
    parameters = dict.fromkeys([TRUNK, *heads], 0)
    seen: set[int] = set()
    for node in module.graph.nodes:
        value = operator.attrgetter(node.target)(module) if node.op == "get_attr" else None
        if isinstance(value, nn.Parameter) and value.data_ptr() not in seen:  # tied weights are one
            seen.add(value.data_ptr())
            parameters[_part(node)] += value.numel()
    flops = dict.fromkeys(parameters, 0)
    with torch.no_grad():
        counter = _Counter(module)
        counter.run(*row)
    for node, count in counter.counts.items():
        flops[_part(node)] += count
    named = {name: name if name == TRUNK else f"heads/{name}" for name in parameters}
    return {
        named[name]: Part(parameters=parameters[name], flops=flops[name])
        for name in parameters
        if name != TRUNK or len(heads) > 1
    }


def _part(node: fx.Node) -> str:
    owners = node.meta.get(OWNERS, frozenset())
    return next(iter(owners)) if len(owners) == 1 else TRUNK


class _Counter(fx.Interpreter):
    """Runs a program, and counts each node's operations."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.counts: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        self.counts[n] = counter.get_total_flops()
        if is_call(n, *RECURRENT):
            layer: Any = n.args
            rows, weights = self.env[layer[0]], [self.env[weight] for weight in layer[2]]
            steps = rows.shape[0] * rows.shape[1]
            self.counts[n] = 2 * steps * sum(weight.numel() for weight in weights if weight.dim() == 2)
        return result
