"""One OpenAPI 3.1 document per model, made from its spec: every body that it reads, every answer that it gives."""

from __future__ import annotations

from typing import Any

from polyhead.models.spec import ImageInput, ModelSpec, TextInput
from polyhead.serving import errors
from polyhead.serving.protocol import accept, media, npy, oipschemas
from polyhead.serving.protocol.schemas import Schema, answer_schema, example, input_schema, labels_schema, object_of
from polyhead.serving.settings import Settings

__all__ = ["PATH", "document"]

# What stands behind `/predictions/{model}/{version}/`; TorchServe hands it over in the header `url_path`.
PATH = "openapi.json"
ERRORS = (
    errors.MalformedBody,
    errors.NotAcceptable,
    errors.PayloadTooLarge,
    errors.UnsupportedMediaType,
    errors.InvalidInstance,
    errors.InputNotFinite,
    errors.UnknownHead,
    errors.UnknownOption,
    errors.AnswerNotFinite,
    errors.InternalError,
)
# What TorchServe answers itself, with a body of its own.
FRONT_END = {400: "Bad Request", 404: "Not Found", 413: "Payload Too Large", 500: "Internal Server Error"}
FRONT_END |= {503: "Service Unavailable", 507: "Insufficient Storage"}
BINARY: Schema = {"schema": {}}  # OpenAPI 3.1: bytes have no schema


def document(spec: ModelSpec, settings: Settings) -> dict[str, Any]:
    """The document of one model.

    Args:
        spec: the model's.
        settings: the bounds of a request.
    """
    answer = _operation(spec, "predict", _bodies(spec), ("Predictions", "Row"))
    infer = _operation(spec, "infer", _oip_bodies(), ("InferResponse",))
    paths = {
        f"/predictions/{spec.name}": {"post": answer},
        f"/predictions/{spec.name}/{spec.version}": {"post": answer | {"operationId": "predictVersion"}},
        f"/v1/models/{spec.name}:predict": {"post": answer | {"operationId": "predictV1"}},
        f"/v2/models/{spec.name}/infer": {"post": infer},
        f"/predictions/{spec.name}/{spec.version}/{PATH}": {"get": _own()},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": spec.name, "version": spec.version, "description": spec.description},
        "paths": paths,
        "components": {"schemas": _schemas(spec, settings), "parameters": _parameters(spec), "headers": _headers()},
    }


def _ref(name: str, kind: str = "schemas") -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _schemas(spec: ModelSpec, settings: Settings) -> dict[str, Schema]:
    """Everything that a body or an answer is made of, by name."""
    found: dict[str, Schema] = {f"Input-{name}": input_schema(name, spec) for name in spec.inputs}
    row = object_of({name: _ref(f"Input-{name}") for name in spec.inputs})
    only = [_ref(f"Input-{name}") for name in spec.inputs] if len(spec.inputs) == 1 else []
    found["Instance"] = {"anyOf": [row, *only]}
    found["Heads"] = {"type": "array", "items": {"enum": list(spec.heads)}, "minItems": 1}
    found["Options"] = _options()
    found["Request"] = object_of(
        {
            "instances": {
                "type": "array",
                "items": _ref("Instance"),
                "minItems": 1,
                "maxItems": settings.max_rows,
            },
            "heads": _ref("Heads"),
            "options": _ref("Options"),
        },
        ("instances",),
    )
    found["Request"]["examples"] = [{"instances": [{name: example(value) for name, value in spec.inputs.items()}]}]
    for name, head in spec.heads.items():
        labels = labels_schema(head)
        if labels is not None:
            found[f"Label-{name}"] = labels
        found[f"Answer-{name}"] = answer_schema(head, _ref(f"Label-{name}"))
    found["Row"] = object_of({name: _ref(f"Answer-{name}") for name in spec.heads}, ()) | {"minProperties": 1}
    found["Predictions"] = object_of({"predictions": {"type": "array", "items": _ref("Row"), "minItems": 1}})
    place = {"type": "array", "items": {"type": ["string", "integer"]}, "description": "where in the request"}
    kinds = {"enum": sorted({error.type for error in ERRORS})}
    found["Error"] = object_of({"error": {"type": "string"}, "type": kinds, "loc": place})
    texts = {"type": {"type": "string"}, "message": {"type": "string"}}
    found["FrontEndError"] = object_of({"code": {"type": "integer"}, **texts}, ("code",))
    return found | oipschemas.schemas(spec, settings)


def _options() -> Schema:
    return object_of(
        {
            "top_k": {"type": "integer", "minimum": 1},
            "scores": {"type": "boolean"},
            "raw": {"type": "boolean"},
            "mask": {"enum": ["runs", "png"]},
        },
        (),
    )


def _parameters(spec: ModelSpec) -> dict[str, Schema]:
    heads: Schema = {"type": "array", "items": {"enum": list(spec.heads)}, "minItems": 1}
    return {
        "Heads": {
            "name": "X-Polyhead-Heads",
            "in": "header",
            "description": "the heads wanted, beside a body that is no JSON; left out, all",
            "schema": heads,
        },
        "Options": {
            "name": "X-Polyhead-Options",
            "in": "header",
            "description": "the options, beside a body that is no JSON",
            "content": {accept.JSON: {"schema": _ref("Options")}},
        },
        "Length": {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "bytes of the JSON, in front of those of the tensors",
            "schema": {"type": "integer", "minimum": 1},
        },
    }


def _headers() -> dict[str, Schema]:
    return {
        "Model": {"description": "what answered: name/version", "schema": {"type": "string"}},
        "Bundle": {"description": "the first 12 digits of its manifest's hash", "schema": {"type": "string"}},
    }


def _bodies(spec: ModelSpec) -> dict[str, Schema]:
    """By media type, the bodies of a prediction."""
    found: dict[str, Schema] = {accept.JSON: {"schema": _ref("Request")}}
    only = next(iter(spec.inputs.values()))
    for name in media.media_types(spec):
        text = isinstance(only, TextInput)
        found[name] = {"schema": input_schema(next(iter(spec.inputs)), spec)} if text else dict(BINARY)
    if npy.fits(spec):
        what = "pixels, uint8" if isinstance(only, ImageInput) else "numbers"
        found[accept.NPY] = {"schema": {"description": f"numpy.save of an array of rows: {what}"}}
    columns = ", ".join(spec.inputs)
    found[accept.ARROW] = {"schema": {"description": f"an Arrow IPC stream with the columns {columns}"}}
    return found


def _oip_bodies() -> dict[str, Schema]:
    return {accept.JSON: {"schema": _ref("InferRequest")}, accept.OCTETS: dict(BINARY)}


def _operation(spec: ModelSpec, name: str, bodies: dict[str, Schema], answers: tuple[str, ...]) -> Schema:
    infer = name == "infer"
    content: dict[str, Schema] = {accept.JSON: {"schema": {"anyOf": [_ref(answer) for answer in answers]}}}
    more = (accept.OCTETS,) if infer else (accept.ARROW, accept.NPY)
    content |= {media_type: dict(BINARY) for media_type in more}
    headers = {"X-Polyhead-Model": _ref("Model", "headers"), "X-Polyhead-Bundle": _ref("Bundle", "headers")}
    return {
        "operationId": name,
        "summary": f"{'Tensors' if infer else 'Answers'} of {', '.join(spec.heads)}",
        "description": "A body may be compressed: Content-Encoding gzip or deflate.",
        "parameters": [_ref("Length" if infer else "Options", "parameters"), _ref("Heads", "parameters")],
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": {"description": "OK", "headers": headers, "content": content}, **_failures()},
    }


def _failures() -> dict[str, Schema]:
    """By status, what goes wrong."""
    found: dict[str, Schema] = {}
    own = {error.status: error.phrase for error in ERRORS}
    for status in sorted(own.keys() | FRONT_END.keys()):
        bodies = [_ref("Error")] if status in own else []
        bodies += [_ref("FrontEndError")] if status in FRONT_END else []
        phrase = own.get(status) or FRONT_END[status]
        found[str(status)] = {"description": phrase, "content": {accept.JSON: {"schema": {"anyOf": bodies}}}}
    return found


def _own() -> Schema:
    content = {accept.JSON: {"schema": {"type": "object"}}}
    return {
        "operationId": "openapi",
        "summary": "This document",
        "responses": {"200": {"description": "OK", "content": content}, **_failures()},
    }
