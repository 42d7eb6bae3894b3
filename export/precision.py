"""Half precision: the same program with its large operations in fp16 or bf16, and what it takes and returns as before.

Each operation falls into one of three classes, as in PyTorch's autocast: matrix products and convolutions run in half
precision; what loses numbers there (norms, softmax, exponentials, sums) runs in fp32; anything else runs in what it
gets. Heads that are to stay in fp32 get what they take of the trunk widened, and keep their own layers as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn

from polyhead.export.merging import PACKED_NODE
from polyhead.export.program import OWNERS, copied, outputs_of, rebuilt

__all__ = ["HALF", "halved"]

aten = torch.ops.aten
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
FP32 = torch.float32

PRODUCTS = {
    aten.linear, aten.matmul, aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.einsum,
    aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution, aten.conv_transpose2d, aten.conv_transpose1d,
    aten.scaled_dot_product_attention,
}  # fmt: skip
# What moves, picks, joins or bounds numbers, and what adds or scales two of them.
NEUTRAL = {
    aten.view, aten.reshape, aten.permute, aten.transpose, aten.t, aten.expand, aten.expand_as, aten.unsqueeze,
    aten.squeeze, aten.flatten, aten.slice, aten.select, aten.index_select, aten.gather, aten.cat, aten.stack,
    aten.split, aten.split_with_sizes, aten.chunk, aten.contiguous, aten.clone, aten.alias, aten.masked_fill,
    aten.where, aten.relu, aten.relu_, aten.leaky_relu, aten.hardtanh, aten.gelu, aten.silu, aten.tanh, aten.sigmoid,
    aten.add, aten.add_, aten.sub, aten.mul, aten.neg, aten.max_pool2d, aten.max_pool1d, aten.pad, aten.constant_pad_nd,
    aten.embedding, aten.upsample_nearest2d, aten.maximum, aten.minimum, aten.clamp, aten.clamp_min, aten.narrow,
    aten.unflatten, aten.repeat, aten.movedim, aten.detach, aten.detach_,
}  # fmt: skip

# Of these, the ones that put a number of their own in place of others.
FILLING = {aten.masked_fill, aten.where, aten.clamp, aten.clamp_min, aten.pad, aten.constant_pad_nd}


def halved(module: fx.GraphModule, precision: str, keep: Collection[str] = ()) -> fx.GraphModule:
    """A program in half precision.

    Args:
        module: a captured program, fused or not; it is left as it is.
        precision: a key of `HALF`.
        keep: heads whose own operations stay in fp32.

    Returns:
        A program that takes and returns what `module` does.
    """
    return _Halving(copied(module), HALF[precision], frozenset(keep)).run()


class _Halving:
    def __init__(self, module: fx.GraphModule, half: torch.dtype, keep: frozenset[str]) -> None:
        self.module = module
        self.graph = module.graph
        self.half = half
        self.keep = keep
        # What all heads depend on is the trunk, also where all of them are kept; of a single head, nothing is.
        heads = frozenset[str]().union(*(node.meta.get(OWNERS, ()) for node in self.graph.nodes))
        self.heads = heads if len(heads) > 1 else heads | {""}
        self.types: dict[fx.Node, torch.dtype] = {}  # of nodes that held fp32
        self.casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}

    def run(self) -> fx.GraphModule:
        for node in list(self.graph.nodes):
            if _is_float(node) and node.op in ("placeholder", "get_attr"):
                self.types[node] = FP32
            elif node.op == "call_function":
                self._convert(node)
        end = self.graph.output_node()
        with self.graph.inserting_before(end):
            end.args = (tuple(self._as(node, FP32) for node in outputs_of(self.graph)),)
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return rebuilt(self.module, self.graph)

    def _convert(self, node: fx.Node) -> None:
        """Give an operation the inputs of one type, and note the type of what it returns."""
        floats = [source for source in node.all_input_nodes if source in self.types]
        if node.target is operator.getitem and floats:  # one of several results, of the type that they have
            self.types[node] = self.types[floats[0]]
            return
        wanted = self._wanted(node, floats)
        if floats:
            with self.graph.inserting_before(node):
                changed = {source: self._as(source, wanted) for source in floats}
            node.args = fx.map_arg(node.args, lambda source: changed.get(source, source))
            node.kwargs = fx.map_arg(node.kwargs, lambda source: changed.get(source, source))
        if _is_float(node):
            # What names its type, or has no floating input (zeros, a conversion of integers), is fp32 as it was.
            self.types[node] = FP32 if not floats or _names_type(node) else wanted

    def _wanted(self, node: fx.Node, floats: list[fx.Node]) -> torch.dtype:
        owners = node.meta.get(OWNERS, frozenset())
        own = owners and owners <= self.keep and owners < self.heads
        if PACKED_NODE in node.meta or own or _names_type(node):
            return FP32
        packet = getattr(node.target, "overloadpacket", None)
        if packet in PRODUCTS:
            return self.half
        if packet in NEUTRAL and not (packet in FILLING and self._holds_beyond(node)):
            weights = {source for source in floats if source.op == "get_attr"}
            given = {self.types[source] for source in floats if source not in weights}
            return self.half if given == {self.half} or (packet is aten.embedding and weights) else FP32
        return FP32

    def _holds_beyond(self, node: fx.Node) -> bool:
        """Whether an operation has a number that half precision has not, such as -1e9 for what a mask hides."""
        most = torch.finfo(self.half).max
        numbers = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, int | float)]
        return any(most < abs(value) < float("inf") for value in numbers)

    def _as(self, node: fx.Node, wanted: torch.dtype) -> fx.Node:
        """A node's value in a type: itself, a weight stored in that type, or one conversion for all that want it."""
        if self.types.get(node, wanted) == wanted:
            return node
        if (node, wanted) not in self.casts:
            if node.op == "get_attr":
                cast = self._weight(node, wanted)
            else:
                cast = self.graph.call_function(torch.ops.aten.to.dtype, (node, wanted))
            cast.meta |= {OWNERS: node.meta.get(OWNERS, frozenset()), "val": node.meta["val"].to(wanted)}
            self.casts[node, wanted] = cast
            self.types[cast] = wanted
        return self.casts[node, wanted]

    def _weight(self, node: fx.Node, wanted: torch.dtype) -> fx.Node:
        value: Any = self.module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        name = f"{str(node.target).replace('.', '_')}_half_{len(self.casts)}"  # two names may differ in a dot alone
        self.module.register_parameter(name, nn.Parameter(value.detach().to(wanted), requires_grad=False))
        return self.graph.get_attr(name)


def _is_float(node: fx.Node) -> bool:
    """Whether a node holds fp32 in the captured program: a tensor, or the several results of a split."""
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else (value,)
    return any(isinstance(one, Tensor) and one.dtype == FP32 for one in values)


def _names_type(node: fx.Node) -> bool:
    """Whether an operation says what type it returns."""
    return any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values()))
