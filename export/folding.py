"""Batch normalisation folded into the convolution before it, where a program is made for lower precision.

`y = (conv(x) - mean) / sqrt(var + eps) * weight + bias` is a convolution with other weights. In half precision the norm
would run in fp32, between two conversions of everything; runtimes fold fp32 graphs by themselves.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from polyhead.export.program import OWNERS, copied, is_call, rebuilt

__all__ = ["folded"]

aten = torch.ops.aten
NORM = aten._native_batch_norm_legit_no_training.default


def folded(module: fx.GraphModule) -> fx.GraphModule:
    """A program in which convolutions hold the batch normalisation that followed them; `module` is left as it is."""
    module = copied(module)
    for index, norm in enumerate([node for node in module.graph.nodes if is_call(node, NORM)]):
        convolution = norm.args[0]
        alone = is_call(convolution, aten.conv2d.default, aten.conv1d.default) and len(convolution.users) == 1
        if not alone or any(user.target is not operator.getitem or user.args[1] != 0 for user in norm.users):
            continue
        weights: list[Any] = [
            convolution.args[1],
            convolution.args[2] if len(convolution.args) > 2 else None,
            *norm.args[1:5],
        ]
        if all(node is None or node.op == "get_attr" for node in weights):
            _fold(module, f"folded_{index}", convolution, norm, weights)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return rebuilt(module, module.graph)


def _fold(module: fx.GraphModule, name: str, convolution: fx.Node, norm: fx.Node, weights: list[Any]) -> None:
    kernel, bias, scale, shift, mean, variance = (_tensor(module, node) for node in weights)
    epsilon: Any = norm.args[6]
    fused = fuse_conv_bn_weights(kernel, bias, mean, variance, epsilon, scale, shift)
    mode = convolution.meta["val"].fake_mode
    with module.graph.inserting_before(convolution):
        nodes = []
        for part, value in zip(("weight", "bias"), fused, strict=True):
            tensor: Tensor = value.detach()
            module.register_parameter(f"{name}_{part}", nn.Parameter(tensor, requires_grad=False))
            node = module.graph.get_attr(f"{name}_{part}")
            node.meta |= {OWNERS: convolution.meta[OWNERS], "val": mode.from_tensor(tensor)}
            nodes.append(node)
    convolution.args = (convolution.args[0], *nodes, *convolution.args[3:])
    for user in list(norm.users):
        user.replace_all_uses_with(convolution)
        module.graph.erase_node(user)
    module.graph.erase_node(norm)


def _tensor(module: nn.Module, node: fx.Node | None) -> Any:
    """A weight, None where the layer has none."""
    return None if node is None else operator.attrgetter(str(node.target))(module)
