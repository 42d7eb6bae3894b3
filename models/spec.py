"""The spec of a multi-task model: its inputs and heads, by name. Pydantic only, no torch.

A spec is YAML; unknown keys, duplicate keys and values of the wrong type are refused. It is the one description that
training, export, serving and scoring share, and it travels inside every bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StrictBool, StrictStr, ValidationError, field_validator, model_validator

from polyhead.models.faults import first_fault
from polyhead.models.fields import Name, Number, Size, Strict
from polyhead.models.inputs import ImageInput, InputSpec, TensorInput, TextInput, dimensions
from polyhead.models.yaml import read_yaml

__all__ = [
    "DENSE_HEADS",
    "RESERVED_PREFIX",
    "ClassificationHead",
    "EmbeddingHead",
    "HeadSpec",
    "ImageInput",
    "InputSpec",
    "Labelled",
    "ModelSpec",
    "MultilabelHead",
    "OneShotHead",
    "RegressionHead",
    "SegmentationHead",
    "SpecError",
    "Strict",
    "TensorInput",
    "TextInput",
    "TokensHead",
    "first_fault",
]

# Graph outputs that are not heads (the packed tensor) begin with this, so no head may.
RESERVED_PREFIX = "polyhead_"

# A version is a folder's name and part of a URL.
Version = Annotated[StrictStr, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,31}$")]
Score = Annotated[Number, Field(ge=0.0, le=1.0)]
# Control characters are in no label a person means, and YAML folds some of them into spaces.
Label = Annotated[StrictStr, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Text = Annotated[StrictStr, Field(pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")]


class SpecError(ValueError):
    """A spec that cannot be read, or says something impossible. The message says what, got, and fix."""


class Head(Strict):
    """What every head has: where its leaf is in the network's output, where that is not the head's own name."""

    # A path such as "1.0" (index 0 of index 1), "" for a bare tensor, None for the dict key of the head's name.
    output: StrictStr | None = None
    description: Text = ""


def _strings(labels: Any) -> Any:
    if isinstance(labels, list):
        for label in labels:
            if not isinstance(label, str):  # YAML reads on, off, yes, no, 1 and 2.5 as something else
                raise ValueError(f"label {label!r} is not a string: quote it")
    return labels


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"label {twice[0]!r} stands more than once")
    return labels


class Labelled(Head):
    """A head with a fixed list of labels; index i of the logits is label i."""

    labels: Annotated[tuple[Label, ...], Field(min_length=2)]

    _strings = field_validator("labels", mode="before")(_strings)
    _distinct = field_validator("labels")(_distinct)


class ClassificationHead(Labelled):
    """One label per row. Logits `[batch, labels]`."""

    kind: Literal["classification"]


class MultilabelHead(Labelled):
    """Any number of labels per row. Logits `[batch, labels]`; a label holds where its sigmoid reaches the threshold."""

    kind: Literal["multilabel"]
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    threshold: Score | tuple[Score, ...] = 0.5  # one for all, or one per label

    @model_validator(mode="after")
    def _one_threshold_per_label(self) -> Self:
        if isinstance(self.threshold, tuple) and len(self.threshold) != len(self.labels):
            raise ValueError(
                f"threshold has {len(self.threshold)} values for {len(self.labels)} labels: give one, or one per label"
            )
        return self


class RegressionHead(Head):
    """Numbers with a unit. `[batch, dim]`, or `[batch]` where dim is 1."""

    kind: Literal["regression"]
    unit: Text = ""
    dim: Size = 1


class TokensHead(Labelled):
    """One label per word, at its first token. Logits `[batch, sequence, labels]`.

    Labels `O`, `B-<type>`, `I-<type>` mark spans of words; any other labels stand for one word each (`O`: for none).
    """

    kind: Literal["tokens"]
    input: Name | None = None  # the text input whose tokens it labels, where there are several


class EmbeddingHead(Head):
    """A vector. `[batch, dim]`; with `normalize` the graph scales it to length 1."""

    kind: Literal["embedding"]
    dim: Size
    normalize: StrictBool = False


class SegmentationHead(Labelled):
    """One label per pixel. Logits `[batch, labels, height, width]`."""

    kind: Literal["segmentation"]


class OneShotHead(Head):
    """The nearest prototype, by Euclidean distance, of the classes enrolled without training. `[batch, dim]`.

    With `normalize` the graph scales vectors to length 1. A class's score is the softmax over the enrolled classes of
    `-scale * distance^2`. A row farther than `max_distance` from every prototype gets no label.
    """

    kind: Literal["oneshot"]
    dim: Size
    labels: tuple[Label, ...] = ()  # the classes it was trained on; target i is label i, enrolled by `polyhead train`
    _strings = field_validator("labels", mode="before")(_strings)
    _distinct = field_validator("labels")(_distinct)
    normalize: StrictBool = True
    scale: Annotated[Number, Field(gt=0)] = 10.0
    max_distance: Annotated[Number, Field(gt=0)] | None = None


HeadSpec = Annotated[
    ClassificationHead | MultilabelHead | RegressionHead | TokensHead | EmbeddingHead | SegmentationHead | OneShotHead,
    Field(discriminator="kind"),
]


# Heads with one output per token or pixel, not one per row.
DENSE_HEADS = (TokensHead, SegmentationHead)


class ModelSpec(Strict):
    """A model's name, version, inputs and heads."""

    name: Name
    version: Version
    description: Text = ""
    inputs: Annotated[dict[Name, InputSpec], Field(min_length=1)]
    heads: Annotated[dict[Name, HeadSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for head in self.heads:
            if head.lower().startswith(RESERVED_PREFIX):
                raise ValueError(f"head name {head!r} begins with {RESERVED_PREFIX!r}, which is reserved: rename it")
        for name in sorted(set(self.heads) & set(self.inputs)):
            raise ValueError(f"{name!r} is the name of an input and of a head: rename one, a graph needs both apart")
        for head, spec in self.heads.items():
            if isinstance(spec, TokensHead):
                self._require_text(head, spec)
            if isinstance(spec, SegmentationHead):
                self._require_unpadded(head)
        dimensions(self.inputs)
        return self

    def _require_unpadded(self, head: str) -> None:
        """Beside an image, a tensor may be filled up: the mask is the image's. The parity gate sees where it is not."""
        padded = [
            name for name, value in self.inputs.items() if isinstance(value, TensorInput) and value.pad is not None
        ]
        if padded and not any(isinstance(value, ImageInput) for value in self.inputs.values()):
            raise ValueError(
                f"head {head!r} labels every pixel and cannot tell those that pad fills up in input {padded[0]!r}: "
                "leave pad out, and rows of equal shape are run together"
            )

    def _require_text(self, head: str, spec: TokensHead) -> None:
        texts = [name for name, value in self.inputs.items() if isinstance(value, TextInput)]
        if not texts:
            raise ValueError(f"head {head!r} labels tokens, but no input is of kind text")
        if spec.input is None and len(texts) > 1:
            raise ValueError(f"head {head!r} labels tokens of one of {', '.join(texts)}: say which, with input:")
        if spec.input is not None and spec.input not in texts:
            raise ValueError(f"head {head!r} labels tokens of {spec.input!r}, which is no text input")

    def text_of(self, head: TokensHead) -> str:
        """The text input whose tokens a head labels."""
        return head.input or next(name for name, value in self.inputs.items() if isinstance(value, TextInput))

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads in the order every graph returns them: sorted by name."""
        return tuple(sorted(self.heads))

    @classmethod
    def parse(cls, data: Any, source: str = "spec") -> Self:
        """Read a spec from plain data; `source` names it in errors.

        Raises:
            SpecError: with the first fault's place, what was got, and the number of further faults.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError(f"{source}: {first_fault(error, data)}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a spec from a YAML file.

        Raises:
            SpecError: the file cannot be read, is no YAML, repeats a key, or is no valid spec.
        """
        return cls.parse(read_yaml(path, SpecError), source=str(path))

    def dump(self, path: Path) -> None:
        """Write the spec as YAML, in the order the keys are declared, defaults left out."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
