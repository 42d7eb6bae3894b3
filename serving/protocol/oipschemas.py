"""JSON Schema of the Open Inference Protocol's bodies, of one model."""

from __future__ import annotations

from polyhead.models.spec import ImageInput, InputSpec, ModelSpec, TensorInput, TextInput
from polyhead.serving.protocol.oiptensors import DATATYPES
from polyhead.serving.protocol.schemas import Schema, example, object_of
from polyhead.serving.settings import Settings

__all__ = ["schemas"]

# By kind of the spec's dtype, the beginnings of the datatypes that are taken in its place.
TAKEN = {"f": ("FP", "INT", "UINT"), "i": ("INT", "UINT"), "u": ("INT", "UINT"), "b": ("BOOL",)}
STRING: Schema = {"type": "string"}
SIZE: Schema = {"type": "integer", "minimum": 0}


def schemas(spec: ModelSpec, settings: Settings) -> dict[str, Schema]:
    """`InferRequest`, `InferResponse` and their parts, by name."""
    inputs = [_tensor(name, value, settings.max_rows) for name, value in spec.inputs.items()]
    count = len(inputs)
    outputs = object_of({"name": {"enum": list(spec.heads)}, "parameters": _output_parameters()}, ("name",))
    request = object_of(
        {
            "id": {"type": "string", "maxLength": 1000},
            "parameters": object_of({"binary_data_output": {"type": "boolean"}}, ()),
            "inputs": {"type": "array", "items": {"anyOf": inputs}, "minItems": count, "maxItems": count},
            "outputs": {"type": "array", "items": outputs},
        },
        ("inputs",),
    )
    request["examples"] = [{"inputs": [_example(name, value) for name, value in spec.inputs.items()]}]
    output = object_of(
        {
            "name": {"enum": list(spec.heads)},
            "datatype": {"enum": ["FP32", "BYTES"]},
            "shape": {"type": "array", "items": SIZE, "minItems": 1},
            "data": {"type": "array", "items": {"type": ["number", "string"]}},
            "parameters": object_of({"binary_data_size": SIZE}),
        },
        ("name", "datatype", "shape"),
    )
    response = object_of(
        {
            "model_name": {"const": spec.name},
            "model_version": {"const": spec.version},
            "id": STRING,
            "outputs": {"type": "array", "items": output, "minItems": 1},
        },
        ("model_name", "model_version", "outputs"),
    )
    return {"InferRequest": request, "InferResponse": response}


def _output_parameters() -> Schema:
    return object_of({"binary_data": {"type": "boolean"}, "classification": {"type": "integer", "minimum": 1}}, ())


def _tensor(name: str, spec: InputSpec, most: int) -> Schema:
    """One input: its rows in front of its own shape."""
    rows: Schema = {"type": "integer", "minimum": 1, "maximum": most}
    inner: list[Schema] = []
    if not isinstance(spec, TextInput):
        inner = [{"const": size} if isinstance(size, int) else SIZE for size in spec.shape]
    shape: Schema = {"type": "array", "prefixItems": [rows, *inner], "minItems": 1, "maxItems": max(2, 1 + len(inner))}
    return object_of(
        {
            "name": {"const": name},
            "datatype": {"enum": _datatypes(spec)},
            "shape": shape,
            "data": {"type": "array", "minItems": 1},
            "parameters": object_of({"binary_data_size": SIZE}, ()),
        },
        ("name", "datatype", "shape"),
    )


def _datatypes(spec: InputSpec) -> list[str]:
    if isinstance(spec, TextInput):
        return ["BYTES"]
    kind = "b" if spec.dtype == "bool" else spec.dtype[0]
    numbers = [name for name in DATATYPES if name.startswith(TAKEN[kind])]
    return [*numbers, "BYTES"] if isinstance(spec, ImageInput) else numbers


def _example(name: str, spec: InputSpec) -> Schema:
    value = example(spec)
    if isinstance(spec, TensorInput):
        shape = [1, *(size if isinstance(size, int) else 1 for size in spec.shape)]
        datatype = next(key for key, dtype in DATATYPES.items() if dtype == spec.dtype)
        return {"name": name, "datatype": datatype, "shape": shape, "data": [value]}
    return {
        "name": name,
        "datatype": "BYTES",
        "shape": [1],
        "data": [value if isinstance(value, str) else value["b64"]],
    }
