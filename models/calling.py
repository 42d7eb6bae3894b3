"""How a network is called: any module whose forward takes the spec's inputs and returns its heads."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.models.arrays import array_specs
from polyhead.models.leaves import leaf
from polyhead.models.preprocess import Preprocess
from polyhead.models.spec import (
    EmbeddingHead,
    HeadSpec,
    ModelSpec,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    SpecError,
    TokensHead,
)

__all__ = ["Caller", "canonical", "takes_names"]


class Caller(nn.Module):
    """A network between the arrays at its door and its heads' outputs, as training and validation want both.

    Args:
        network: any module; it takes the arrays by name where its forward has parameters of these names, else by
            position in the order of the spec.
        spec: names inputs and heads.
        heads: of which outputs are wanted.

    Raises:
        SpecError: forward does not take the spec's inputs.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec, heads: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.heads = {name: spec.heads[name] for name in heads}
        self.arrays = tuple(array_specs(spec))
        self.by_name = takes_names(network, self.arrays)
        self.preprocess = Preprocess(spec.inputs)

    def forward(self, **arrays: Tensor) -> dict[str, Tensor]:
        """Raw arrays by name, each `[batch, …]`, to outputs by head name, `float32`; see `canonical`.

        Raises:
            SpecError: the network returns no such head, or one of another shape.
        """
        ready = self.preprocess({name: arrays[name] for name in self.arrays})
        output = self.network(**ready) if self.by_name else self.network(*ready.values())
        return {name: canonical(name, head, leaf(output, name, head)) for name, head in self.heads.items()}


def canonical(name: str, head: HeadSpec, output: Tensor) -> Tensor:
    """A head's output as losses, metrics and the exported graph have it: `float32`, normalised where the spec says so.

    Raises:
        SpecError: its shape is not that of the head's kind.
    """
    output = output.to(torch.float32)
    if isinstance(head, RegressionHead) and head.dim == 1 and output.dim() == 1:
        output = output.unsqueeze(1)
    width = head.dim if isinstance(head, RegressionHead | EmbeddingHead | OneShotHead) else len(head.labels)
    match head:
        case TokensHead():
            wanted, fits = f"[batch, sequence, {width}]", output.dim() == 3 and output.shape[2] == width
        case SegmentationHead():
            wanted, fits = f"[batch, {width}, height, width]", output.dim() == 4 and output.shape[1] == width
        case _:
            wanted, fits = f"[batch, {width}]", output.dim() == 2 and output.shape[1] == width
    if not fits:
        raise SpecError(
            f"head {name!r}: the network returns shape {list(output.shape)}, the spec wants {wanted}: "
            "change the network's layer, or the head's labels or dim"
        )
    if isinstance(head, EmbeddingHead | OneShotHead) and head.normalize:
        output = functional.normalize(output, dim=1)
    return output


def takes_names(network: nn.Module, inputs: Sequence[str]) -> bool:
    """Whether forward takes the inputs by name, or else by position.

    Raises:
        SpecError: it takes neither.
    """
    parameters = inspect.signature(network.forward).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    kinds = {p.kind for p in parameters}
    single = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {p.name for p in parameters if p.default is p.empty and p.kind not in single}
    if required <= set(inputs) and (inspect.Parameter.VAR_KEYWORD in kinds or set(inputs) <= named):
        return True
    enough = required <= set(positional[: len(inputs)])
    if enough and (inspect.Parameter.VAR_POSITIONAL in kinds or len(inputs) <= len(positional)):
        return False
    raise SpecError(
        f"forward({', '.join(p.name for p in parameters)}) does not take the spec's inputs ({', '.join(inputs)}): "
        "name the inputs after its parameters, or give as many"
    )
