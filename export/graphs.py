"""The canonical graph of a network: raw inputs in, one tensor per head and the packed tensor out.

Every format is written from this one module, so that they agree on what goes in and what comes out:

- inputs positionally, in the order of the spec: numbers and images as the wire carries them (an image is `uint8`), of a
  text its token ids and mask;
- outputs positionally: the heads sorted by name, then one tensor that holds all per-row heads side by side. What a
  tokens head says of padding is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    TensorInput,
    TokensHead,
)
from polyhead.models.trunks.pretrained import recording
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

    @property
    def output_names(self) -> tuple[str, ...]:
        """By position."""
        return (*self.spec.head_names, PACKED) if self.row_heads else self.spec.head_names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Raw inputs `[batch, …]` to the outputs in the order of `output_names`, all `float32`."""
        arrays = dict(zip(self.input_names, inputs, strict=True))
        outputs = self.caller(**arrays)
        heads = {name: self._without_padding(name, outputs[name], arrays) for name in self.spec.head_names}
        if not self.row_heads:
            return tuple(heads.values())
        return (*heads.values(), torch.cat([heads[name].flatten(1) for name in self.row_heads], dim=1))

    def _without_padding(self, name: str, output: Tensor, arrays: Mapping[str, Tensor]) -> Tensor:
        """A tokens head's output with zeros for padding; another head's as it is."""
        head = self.spec.heads[name]
        if isinstance(head, TokensHead):
            mask = arrays[text_arrays(self.spec, self.spec.text_of(head))[1]]
            if recording() or output.shape[:2] == mask.shape:  # another shape is refused by `check`
                return output.masked_fill(mask.unsqueeze(2) == 0, 0.0)
        return output

    def packed(self, outputs: Sequence[Tensor]) -> Packed | None:
        """Where each per-row head lies in the packed output, read off one forward pass; None where there is none."""
        if not self.row_heads:
            return None
        columns, shapes, start = {}, {}, 0
        for name, output in zip(self.spec.head_names, outputs, strict=False):
            if name not in self.row_heads:
                continue
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
            except SpecError as error:
                raise ExportError(str(error)) from None
            except Exception as error:
                given = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
                raise ExportError(
                    f"the network does not run on the spec's inputs ({given}, raw): {type(error).__name__}: "
                    f"{str(error).splitlines()[0] if str(error) else 'no message'}{self._length_hint(inputs)}"
                ) from error
        rows = len(next(iter(inputs.values())))
        for name, output in zip(self.spec.head_names, outputs, strict=False):
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


def _require_exportable(spec: ModelSpec) -> None:
    for name, value in spec.inputs.items():
        if isinstance(value, TensorInput) and value.free:
            raise ExportError(
                f"input {name!r} has free dimensions ({', '.join(value.free)}), which this version cannot export: "
                "give whole numbers"
            )
