"""The canonical graph of a network: raw inputs in, one tensor per head and the packed tensor out.

Every format is written from this one module, so that they agree on what goes in and what comes out:

- inputs positionally, in the order of the spec, as the wire carries them (an image is `uint8`);
- outputs positionally: the heads sorted by name, then one tensor that holds them all side by side.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.export.errors import ExportError
from polyhead.export.leaves import leaf
from polyhead.models.preprocess import Preprocess
from polyhead.models.spec import (
    RESERVED_PREFIX,
    EmbeddingHead,
    HeadSpec,
    ModelSpec,
    RegressionHead,
    TensorInput,
    TextInput,
)
from polyhead.serving.answers import SERVED_KINDS
from polyhead.serving.bundle import Packed

__all__ = ["PACKED", "FusedGraph"]

PACKED = f"{RESERVED_PREFIX}packed"


class FusedGraph(nn.Module):
    """Trunk and every head in one forward pass.

    Args:
        network: any module whose forward returns the heads' outputs; it is switched to evaluation.
        spec: names inputs and heads.

    Raises:
        ExportError: this version cannot export such a spec, or forward does not take the spec's inputs.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        _require_exportable(spec)
        self.spec = spec
        self.network = network
        self.preprocess = Preprocess(spec.inputs)
        self.by_name = _takes_names(network, tuple(spec.inputs))
        self.eval()

    @property
    def input_names(self) -> tuple[str, ...]:
        """By position."""
        return tuple(self.spec.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """By position."""
        return (*self.spec.head_names, PACKED)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Raw inputs `[batch, …]` to the outputs in the order of `output_names`, all `float32`."""
        values = self.preprocess(dict(zip(self.input_names, inputs, strict=True)))
        output = self.network(**values) if self.by_name else self.network(*values.values())
        heads = [
            _canonical(self.spec.heads[name], leaf(output, name, self.spec.heads[name]))
            for name in self.spec.head_names
        ]
        return (*heads, torch.cat([head.flatten(1) for head in heads], dim=1))

    def packed(self, outputs: Sequence[Tensor]) -> Packed:
        """Where each head lies in the packed output, read off one forward pass."""
        columns, shapes, start = {}, {}, 0
        for name, output in zip(self.spec.head_names, outputs, strict=False):
            width = output[0].numel()
            columns[name] = (start, start + width)
            shapes[name] = tuple(output.shape[1:])
            start += width
        return Packed(output=PACKED, columns=columns, shapes=shapes)

    def check(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run eagerly, and hold every head's output against the spec. Returns the outputs of `forward`.

        Raises:
            ExportError: a head is missing, of another shape, or no float tensor.
        """
        with torch.inference_mode():
            try:
                outputs: tuple[Tensor, ...] = self(*inputs.values())
            except ExportError:
                raise
            except Exception as error:
                given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
                raise ExportError(
                    f"the network does not run on the spec's inputs ({given}, raw): {type(error).__name__}: "
                    f"{str(error).splitlines()[0] if str(error) else 'no message'}"
                ) from error
        rows = len(next(iter(inputs.values())))
        for name, output in zip(self.spec.head_names, outputs, strict=False):
            wanted = [rows, _width(self.spec.heads[name])]
            if list(output.shape) != wanted:
                raise ExportError(
                    f"head {name!r}: the network returns shape {list(output.shape)} for {rows} rows, "
                    f"the spec wants {wanted} ({_reason(self.spec.heads[name])})"
                )
        return outputs


def _canonical(head: HeadSpec, output: Tensor) -> Tensor:
    """A head's output as the contract has it: `float32 [batch, width]`, normalised where the spec says so."""
    output = output.to(torch.float32)
    if isinstance(head, RegressionHead) and head.dim == 1 and output.dim() == 1:
        output = output.unsqueeze(1)
    if isinstance(head, EmbeddingHead) and head.normalize:
        output = functional.normalize(output, dim=1)
    return output


def _width(head: HeadSpec) -> int:
    return head.dim if isinstance(head, RegressionHead | EmbeddingHead) else len(head.labels)  # type: ignore[union-attr]


def _reason(head: HeadSpec) -> str:
    width = _width(head)
    return f"dim: {width}" if isinstance(head, RegressionHead | EmbeddingHead) else f"{width} labels"


def _require_exportable(spec: ModelSpec) -> None:
    for name, head in spec.heads.items():
        if head.kind not in SERVED_KINDS:
            raise ExportError(
                f"head {name!r} is of kind {head.kind}, which this version cannot export "
                f"(it can: {', '.join(SERVED_KINDS)})"
            )
    for name, value in spec.inputs.items():
        if isinstance(value, TextInput):
            raise ExportError(
                f"input {name!r} is of kind text, which this version cannot export (it can: image, tensor)"
            )
        if isinstance(value, TensorInput) and value.free:
            raise ExportError(
                f"input {name!r} has free dimensions ({', '.join(value.free)}), which this version cannot export: "
                "give whole numbers"
            )


def _takes_names(network: nn.Module, inputs: tuple[str, ...]) -> bool:
    """Whether forward takes the inputs by name, or else by position.

    Raises:
        ExportError: it takes neither.
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
    raise ExportError(
        f"forward({', '.join(p.name for p in parameters)}) does not take the spec's inputs ({', '.join(inputs)}): "
        "name the inputs after its parameters, or give as many"
    )
