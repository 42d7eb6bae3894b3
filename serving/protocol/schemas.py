"""JSON Schema (2020-12) of what a model takes and answers: each input's values, each head's answers."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from polyhead.models.inputs import RANGES, dimensions
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    ImageInput,
    InputSpec,
    Labelled,
    ModelSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    TensorInput,
    TextInput,
    TokensHead,
)
from polyhead.serving.protocol.images import encode_png

__all__ = ["Schema", "answer_schema", "example", "input_schema", "labels_schema", "object_of"]

Schema = dict[str, Any]
NUMBER: Schema = {"type": "number"}
SCORE: Schema = {"type": "number", "minimum": 0, "maximum": 1.000001}  # a sum of float32 may exceed 1 by its last bit
COUNT: Schema = {"type": "integer", "minimum": 0}


def object_of(properties: Mapping[str, Schema], required: tuple[str, ...] | None = None, about: str = "") -> Schema:
    """An object of these keys and no others; all of them required where nothing else is said."""
    found: Schema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }
    return found | ({"description": about} if about else {})


def input_schema(name: str, spec: ModelSpec) -> Schema:
    """One input's value in one row."""
    value = spec.inputs[name]
    match value:
        case TextInput():
            return _text(value)
        case ImageInput():
            pixels = TensorInput(kind="tensor", dtype="uint8", shape=value.shape)
            file = {"type": "string", "contentEncoding": "base64", "description": "a PNG or JPEG file in base64"}
            choices = [object_of({"b64": file}), _nested(pixels, pixels.shape, {})]
            if value.depth == 1:
                choices.append(_nested(pixels, value.size, {}))
            return {"anyOf": choices}
        case TensorInput():
            return _nested(value, value.shape, dimensions(spec.inputs))


def _text(spec: TextInput) -> Schema:
    cut = "is cut" if spec.truncate else "is refused"
    return {"type": "string", "description": f"a longer text than {spec.max_length} tokens {cut}"}


def _nested(spec: TensorInput, shape: tuple[int | str, ...], bounds: Mapping[str, tuple[int, int]]) -> Schema:
    """Lists of numbers, from the outermost dimension in."""
    if shape:
        least, most = bounds[shape[0]] if isinstance(shape[0], str) else (shape[0], shape[0])
        about = {"description": shape[0]} if isinstance(shape[0], str) else {}
        items = _nested(spec, shape[1:], bounds)
        return {"type": "array", "items": items, "minItems": least, "maxItems": most, **about}
    if spec.dtype == "bool":
        return {"type": "boolean"}
    smallest, largest = RANGES[spec.dtype]
    kind = "number" if spec.dtype.startswith("float") else "integer"
    return {"type": kind, "minimum": smallest, "maximum": largest}


def example(spec: InputSpec) -> Any:
    """A value that the input takes: zeros, a black image, a short text."""
    match spec:
        case TextInput():
            return "turn on the kitchen light"
        case ImageInput():
            return {"b64": base64.b64encode(encode_png(np.zeros(spec.shape, np.uint8), spec)).decode()}
        case TensorInput():
            return np.zeros([d if isinstance(d, int) else 1 for d in spec.shape], spec.dtype).tolist()


def labels_schema(head: HeadSpec) -> Schema | None:
    """The labels that a head may answer; None where it has none, or learns them when it is served."""
    return {"type": "string", "enum": list(head.labels)} if isinstance(head, Labelled) else None


def answer_schema(head: HeadSpec, label: Schema) -> Schema:
    """One head's answer to one row, with all that options may add.

    Args:
        head: of any kind.
        label: the schema of its labels.
    """
    return KINDS[head.kind](head, label)


def _list(items: Schema, count: int | None = None) -> Schema:
    return {"type": "array", "items": items} | ({} if count is None else {"minItems": count, "maxItems": count})


def _by_label(label: Schema) -> Schema:
    return {"type": "object", "propertyNames": label, "additionalProperties": SCORE}


def _classification(head: ClassificationHead, label: Schema) -> Schema:
    index = COUNT | {"maximum": len(head.labels) - 1}
    best = {"label": label, "score": SCORE, "index": index}
    more = {"scores": _by_label(label), "top": _list(object_of(best)), "raw": _list(NUMBER, len(head.labels))}
    return object_of(best | more, tuple(best), head.description)


def _multilabel(head: MultilabelHead, label: Schema) -> Schema:
    plain = {"labels": _list(label) | {"uniqueItems": True}, "scores": _list(SCORE)}
    more = {"all_scores": _by_label(label), "raw": _list(NUMBER, len(head.labels))}
    return object_of(plain | more, tuple(plain), head.description)


def _regression(head: RegressionHead, _label: Schema) -> Schema:
    plain = {"value": NUMBER if head.dim == 1 else _list(NUMBER, head.dim), "unit": {"const": head.unit}}
    return object_of(plain | {"raw": _list(NUMBER, head.dim)}, tuple(plain), head.description)


def _embedding(head: EmbeddingHead, _label: Schema) -> Schema:
    vector = _list(NUMBER, head.dim)
    return object_of({"vector": vector, "raw": vector}, ("vector",), head.description)


def _tokens(head: TokensHead, label: Schema) -> Schema:
    word = {"label": label, "text": {"type": "string"}, "start": COUNT, "end": COUNT, "score": SCORE}
    entity = object_of(word | {"label": {"type": "string"}})  # "room", where the labels are B-room and I-room
    more = {"words": _list(object_of(word)), "raw": _list(_list(NUMBER, len(head.labels)))}
    return object_of({"entities": _list(entity)} | more, ("entities",), head.description)


def _segmentation(head: SegmentationHead, label: Schema) -> Schema:
    plain = {"labels": _list(label), "areas": _list(SCORE), "size": _list(COUNT, 2)}
    more = {
        "runs": _list(_list(COUNT, 2)),
        "png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        "raw": _list(_list(_list(NUMBER)), len(head.labels)),
    }
    return object_of(plain | more, tuple(plain), head.description)


def _oneshot(head: OneShotHead, _label: Schema) -> Schema:
    text, nothing = {"type": ["string", "null"]}, {"type": ["number", "null"]}
    near = object_of({"label": {"type": "string"}, "score": SCORE, "distance": NUMBER})
    scores = {"type": "object", "additionalProperties": SCORE}
    plain = {"label": text, "score": nothing, "distance": nothing}
    more = {"scores": scores, "top": _list(near), "raw": _list(NUMBER, head.dim)}
    return object_of(plain | more, tuple(plain), head.description)


KINDS: dict[str, Callable[[Any, Schema], Schema]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
    "embedding": _embedding,
    "tokens": _tokens,
    "segmentation": _segmentation,
    "oneshot": _oneshot,
}
