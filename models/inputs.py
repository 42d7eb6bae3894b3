"""The inputs of a model: texts, images, and tensors whose dimensions may be free. Pydantic only, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictStr, model_validator

from polyhead.models.fields import Name, Number, Size, Strict

__all__ = ["LENGTHS", "ImageInput", "InputSpec", "TensorInput", "TextInput", "dimensions"]

# Of a free dimension that no input bounds. Each is some bound, for what a stranger sends must fit into memory; this one
# holds a minute of samples at 16 a second, or a picture of a megapixel.
LENGTHS = (1, 1024)
BATCH = "batch"  # every graph's first dimension

# The least and the greatest number of each dtype. No numpy here, for its import takes longer than reading a spec.
RANGES: dict[str, tuple[float, float]] = {
    "float16": (-65504.0, 65504.0),
    "float32": (-3.4028234663852886e38, 3.4028234663852886e38),
    "float64": (-1.7976931348623157e308, 1.7976931348623157e308),
    "bool": (0, 1),
    "uint8": (0, 255),
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 32, 64)},
}


class TextInput(Strict):
    """UTF-8 text, tokenised by the file the spec names: a `tokenizer.json` of the Hugging Face tokenizers library.

    A bundle holds its own copy of that file. The graph takes token ids and a mask, see `polyhead.models.arrays`.
    """

    kind: Literal["text"]
    tokenizer: StrictStr
    max_length: Annotated[Size, Field(ge=2)] = 512  # tokens, the special ones counted
    truncate: StrictBool = False  # cut longer texts; where false they are refused, for no answer tells what was cut


class ImageInput(Strict):
    """An image, `uint8` on the wire and at the graph's door: `[batch, height, width, channels]`.

    The graph itself computes `(pixel / 255 - mean) / std` per channel and turns the axes to
    `[batch, channels, height, width]`, so that no client and no runtime can do it differently.
    """

    kind: Literal["image"]
    size: tuple[Size, Size]  # height, width in pixels
    channels: Literal["gray", "rgb", "bgr"] = "rgb"
    # Pillow's resampling filters; `none` refuses any image of another size.
    resize: Literal["none", "nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] = "bilinear"
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Number, ...] = (1.0,)

    @property
    def depth(self) -> int:
        """The number of channels."""
        return 1 if self.channels == "gray" else 3

    @property
    def dtype(self) -> str:
        """Of one row."""
        return "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: height, width, channels."""
        return (*self.size, self.depth)

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        for key in ("mean", "std"):
            values: tuple[float, ...] = getattr(self, key)
            if len(values) not in (1, self.depth):
                raise ValueError(f"{key} has {len(values)} values for {self.depth} channels: give one, or {self.depth}")
        if not all(v > 0 for v in self.std):
            raise ValueError(f"std must be above 0, got {self.std}")
        return self


class TensorInput(Strict):
    """Numbers: `dtype` and the shape of one row (without the batch). A free dimension is a name.

    A name stands for one length in a row, wherever it stands: twice in a shape, or in the shapes of several inputs.
    """

    kind: Literal["tensor"]
    dtype: Literal["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"] = "float32"
    shape: tuple[Size | Name, ...]
    # The least and greatest length of each free dimension; `LENGTHS` where no input says.
    lengths: dict[Name, tuple[Size, Size]] = Field(default_factory=dict)
    # The value that fills a free dimension up to the longest row of a batch; None groups rows of equal shape instead.
    pad: Number | None = None

    @cached_property
    def free(self) -> tuple[str, ...]:
        """The names of the free dimensions."""
        return tuple(d for d in self.shape if isinstance(d, str))

    @model_validator(mode="after")
    def _lengths_of_free_dimensions(self) -> Self:
        for name, (least, greatest) in self.lengths.items():
            if name not in self.free:
                free = ", ".join(dict.fromkeys(self.free)) or "none"
                raise ValueError(
                    f"lengths has {name!r}, which is no free dimension of shape (free: {free}): check the name"
                )
            if least >= greatest:
                raise ValueError(
                    f"lengths of {name!r} go from {least} to {greatest}: give the least, then a greater one; "
                    "a length that is always the same stands in shape"
                )
        return self

    @model_validator(mode="after")
    def _pad_is_one_of_the_numbers(self) -> Self:
        if self.pad is None:
            return self
        if not self.free:
            raise ValueError(f"pad {self.pad:g} has nothing to fill, for shape has no free dimension: leave it out")
        least, greatest = RANGES[self.dtype]
        whole = self.dtype.startswith("float") or self.pad == int(self.pad)
        if not whole or not least <= self.pad <= greatest:
            raise ValueError(f"pad {self.pad:g} is no {self.dtype}: give a number that the dtype holds")
        return self


InputSpec = Annotated[TextInput | ImageInput | TensorInput, Field(discriminator="kind")]


def dimensions(inputs: Mapping[str, InputSpec]) -> dict[str, tuple[int, int]]:
    """The least and greatest length of every free dimension of the tensors, by name.

    Raises:
        ValueError: two inputs contradict each other, or a name means something else already.
    """
    tensors = {name: value for name, value in inputs.items() if isinstance(value, TensorInput) and value.free}
    taken = {f"{name}_tokens" for name, value in inputs.items() if isinstance(value, TextInput)} | {BATCH}
    stated: dict[str, str] = {}  # by dimension, the input that bounds it
    first: dict[str, str] = {}  # by dimension, the input that has it first
    for name, value in tensors.items():
        for dimension in value.free:
            if dimension in taken:
                what = "the rows of a batch" if dimension == BATCH else "the tokens of a text"
                raise ValueError(f"input {name!r} has a dimension {dimension!r}, which counts {what}: rename it")
            other = first.setdefault(dimension, name)
            if (tensors[other].pad is None) != (value.pad is None):
                filled, left = (other, name) if value.pad is None else (name, other)
                raise ValueError(
                    f"dimension {dimension!r} is filled up in input {filled!r}, and not in {left!r}: "
                    "they share its length, so give both a pad, or neither"
                )
        for dimension, bounds in value.lengths.items():
            other = stated.setdefault(dimension, name)
            known = tensors[other].lengths[dimension]
            if known != bounds:
                raise ValueError(
                    f"dimension {dimension!r} has lengths {list(known)} in input {other!r} and {list(bounds)} in "
                    f"{name!r}: they share its length, so give both the same"
                )
    return {d: tensors[stated[d]].lengths[d] if d in stated else LENGTHS for d in first}
