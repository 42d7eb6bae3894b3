"""The network behind the spec's inputs and heads: raw inputs in, one tensor per head out.

It is the reference of every graph, and what all of them are captured from, so that they agree on what goes in and out:

- inputs positionally, in the order of the spec: numbers and images as the wire carries them (an image is `uint8`), of a
  text its token ids and mask;
- outputs positionally: the heads sorted by name. What a tokens head says of padding is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from polyhead.export.errors import ExportError
from polyhead.models.arrays import array_specs, text_arrays
from polyhead.models.calling import Caller
from polyhead.models.spec import (
    DENSE_HEADS,
    RESERVED_PREFIX,
    HeadSpec,
    Labelled,
    ModelSpec,
    SegmentationHead,
    SpecError,
    TokensHead,
)
from polyhead.models.trunks.pretrained import recording
from polyhead.serving.manifest import Packed

__all__ = ["PACKED", "FusedGraph", "PackedGraph"]

PACKED = f"{RESERVED_PREFIX}packed"


class FusedGraph(nn.Module):
    """Trunk and every head in one forward pass.

    Args:
        network: any module whose forward returns the heads' outputs; it is switched to evaluation.
        spec: names inputs and heads.

    Raises:
        ExportError: forward does not take the spec's inputs.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.arrays = array_specs(spec)
        try:
            self.caller = Caller(network, spec, spec.head_names)
        except SpecError as error:
            raise ExportError(str(error)) from None
        self.eval()

    @property
    def input_names(self) -> tuple[str, ...]:
        """By position."""
        return tuple(self.arrays)

    @property
    def row_heads(self) -> tuple[str, ...]:
        """The heads of one output per row, which are packed; sorted by name."""
        return tuple(name for name in self.spec.head_names if not isinstance(self.spec.heads[name], DENSE_HEADS))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Raw inputs `[batch, …]` to the heads' outputs, sorted by name, all `float32`."""
        arrays = dict(zip(self.input_names, inputs, strict=True))
        outputs = self.caller(**arrays)
        return tuple(self._without_padding(name, outputs[name], arrays) for name in self.spec.head_names)

    def _without_padding(self, name: str, output: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """A tokens head's output with zeros for padding; another head's as it is."""
        head = self.spec.heads[name]
        if isinstance(head, TokensHead):
            mask = arrays[text_arrays(self.spec, self.spec.text_of(head))[1]]
            if recording() or output.shape[:2] == mask.shape:  # another shape is refused by `check`
                return output.masked_fill(mask.unsqueeze(2) == 0, 0.0)
        return output

    def check(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run eagerly, and hold every head's output against the spec. Returns the outputs of `forward`.

        Raises:
            ExportError: a head is missing, of another shape, or no float tensor.
        """
        with torch.inference_mode():
            try:
                outputs: tuple[Tensor, ...] = self(*inputs.values())
            except SpecError as error:
                raise ExportError(str(error)) from None
            except Exception as error:
                given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
                raise ExportError(
                    f"the network does not run on the spec's inputs ({given}, raw): {type(error).__name__}: "
                    f"{str(error).splitlines()[0] if str(error) else 'no message'}{self._length_hint(inputs)}"
                ) from error
        rows = len(next(iter(inputs.values())))
        for name, output in zip(self.spec.head_names, outputs, strict=True):
            wanted = self._shape(name, rows, inputs)
            fits = output.dim() == len(wanted) and all(
                w in (None, g) for g, w in zip(output.shape, wanted, strict=True)
            )
            if not fits:
                words = ", ".join("any" if w is None else str(w) for w in wanted)
                raise ExportError(
                    f"head {name!r}: the network returns shape {list(output.shape)} for {rows} rows, "
                    f"the spec wants [{words}] ({_reason(self.spec.heads[name])})"
                )
        return outputs

    def _length_hint(self, inputs: Mapping[str, Tensor]) -> str:
        """What to do where texts are of the greatest length, which a network may have too few positions for."""
        for name, array in self.arrays.items():
            if array.role == "ids" and inputs[name].shape[1] == array.longest:
                return f" (max_length of {array.input!r} is {array.longest}: lower it if the network takes fewer)"
        return ""

    def _shape(self, name: str, rows: int, inputs: Mapping[str, Tensor]) -> list[int | None]:
        """What a head's output must be of; None where any length will do."""
        head = self.spec.heads[name]
        match head:
            case TokensHead():
                ids, _ = text_arrays(self.spec, self.spec.text_of(head))
                return [rows, inputs[ids].shape[1], len(head.labels)]
            case SegmentationHead():
                return [rows, len(head.labels), None, None]
            case _:
                return [rows, _width(head)]


def _width(head: HeadSpec) -> int:
    return len(head.labels) if isinstance(head, Labelled) else head.dim


def _reason(head: HeadSpec) -> str:
    words = f"{_width(head)} labels" if isinstance(head, Labelled) else f"dim: {_width(head)}"
    return f"{words} for each token, special ones and padding too" if isinstance(head, TokensHead) else words


class PackedGraph(nn.Module):
    """A network with its packed output, traced as it is: only where torch.export refuses the network."""

    def __init__(self, graph: FusedGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Raw inputs to the heads' outputs, sorted by name, then the packed output where there is one."""
        outputs: tuple[Tensor, ...] = self.graph(*inputs)
        heads = dict(zip(self.graph.spec.head_names, outputs, strict=True))
        rows = [heads[name] for name in self.graph.row_heads]
        return (*outputs, torch.cat(rows, dim=1)) if rows else outputs

    def packed(self, example: Sequence[Tensor]) -> Packed | None:
        """Where each per-row head lies in the packed output; None where there is none."""
        with torch.inference_mode():
            heads = dict(zip(self.graph.spec.head_names, self.graph(*example), strict=True))
        columns, shapes, start = {}, {}, 0
        for name in self.graph.row_heads:
            shapes[name] = tuple(heads[name].shape[1:])
            columns[name] = (start, start + prod(shapes[name]))
            start = columns[name][1]
        return Packed(output=PACKED, columns=columns, shapes=shapes) if columns else None
