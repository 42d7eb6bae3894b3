"""What a graph takes at its door: one array per tensor or image input, two per text. No torch.

A text input becomes token ids and a mask, named as Hugging Face models name their parameters, so that such a network is
exported as it is: `input_ids` and `attention_mask`; with several text inputs, `<input>_input_ids` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from polyhead.models.inputs import dimensions
from polyhead.models.spec import ImageInput, ModelSpec, SpecError, TensorInput, TextInput

__all__ = ["ArraySpec", "array_specs", "text_arrays"]


@dataclass(frozen=True)
class ArraySpec:
    """One array at the graph's door.

    Attributes:
        input: the spec's input that it comes from.
        role: `value` (a tensor or an image as it is), `ids` or `mask` (of a text).
        dtype: numpy's name.
        shape: of one row; a free dimension is a name, and dimensions of one name have one length in a batch.
        longest: of a text, the most tokens that the spec allows.
        lengths: of each free dimension, the least and the greatest length.
        pad: what fills a free dimension up to the longest row of a batch; None where rows must be of one shape.
    """

    input: str
    role: Literal["value", "ids", "mask"]
    dtype: str
    shape: tuple[int | str, ...]
    pad: float | None = None
    longest: int | None = None
    lengths: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)

    @property
    def free(self) -> tuple[str, ...]:
        """The names of the free dimensions."""
        return tuple(d for d in self.shape if isinstance(d, str))


def text_arrays(spec: ModelSpec, name: str) -> tuple[str, str]:
    """The names of a text input's ids and mask."""
    texts = [n for n, value in spec.inputs.items() if isinstance(value, TextInput)]
    prefix = "" if len(texts) == 1 else f"{name}_"
    return f"{prefix}input_ids", f"{prefix}attention_mask"


def array_specs(spec: ModelSpec) -> dict[str, ArraySpec]:
    """Every array by name, in the order that the graph takes them.

    Raises:
        SpecError: an input or a head has the name of a text's array.
    """
    arrays: dict[str, ArraySpec] = {}
    bounds = dimensions(spec.inputs)
    for name, value in spec.inputs.items():
        match value:
            case TextInput():
                for array, role in zip(text_arrays(spec, name), ("ids", "mask"), strict=True):
                    if array in spec.heads or array in spec.inputs:
                        raise SpecError(f"{array!r} names an array of text input {name!r}: rename the input or head")
                    tokens = f"{name}_tokens"
                    lengths = {tokens: (1, value.max_length)}
                    arrays[array] = ArraySpec(name, role, "int64", (tokens,), 0, value.max_length, lengths)  # type: ignore[arg-type]
            case ImageInput():
                arrays[name] = ArraySpec(name, "value", value.dtype, value.shape)
            case TensorInput():
                own = {dimension: bounds[dimension] for dimension in value.free}
                arrays[name] = ArraySpec(name, "value", value.dtype, value.shape, value.pad, None, own)
    return arrays
