"""The Open Inference Protocol, version 2, as KServe and Triton speak it: JSON, and the binary tensor extension.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and Triton's
`extension_binary_data.md` and `extension_classification.md`. What is not known is refused: a misspelling must not go
unnoticed, and a parameter that nobody acts on is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import orjson

from polyhead.models.spec import ClassificationHead, ModelSpec, MultilabelHead, OneShotHead
from polyhead.serving.errors import InvalidInstance, MalformedBody, Place, RequestError, UnknownHead, UnknownOption
from polyhead.serving.protocol import accept
from polyhead.serving.protocol.columns import require_room
from polyhead.serving.protocol.headsheader import named_heads
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.protocol.oipanswers import Output, Reply
from polyhead.serving.protocol.oiptensors import DATATYPES, TensorBody, column
from polyhead.serving.request import Body, HttpRequest, Query
from polyhead.serving.settings import Settings

__all__ = ["LENGTH_HEADER", "begins", "decode"]

LENGTH_HEADER = "inference-header-content-length"
KEYS = ("id", "inputs", "outputs", "parameters")
LONGEST_ID = 1000
MOST_DIMENSIONS = 32


def begins(key: str | int) -> bool:
    """Whether a key, unknown to our own JSON, is one of this protocol."""
    return key in KEYS


def decode(request: HttpRequest, spec: ModelSpec, settings: Settings, otherwise: RequestError | None = None) -> Query:
    """A JSON body with `inputs`, and the bytes of tensors behind it where the header tells its length.

    Args:
        request: of any media type, for most clients say none.
        spec: the model's.
        settings: the bounds of a request.
        otherwise: raised where the body has no `inputs`, or has `instances` beside them.

    Raises:
        RequestError: naming the place in the JSON.
    """
    head, rest = _parted(request)
    try:
        body = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if otherwise is not None and ("inputs" not in body or "instances" in body):
        raise otherwise
    try:
        return _decode(request, body, rest, spec, settings)
    except RecursionError:  # orjson allows deeper nesting than Python's stack
        raise MalformedBody("the body is nested too deeply: send flat lists of numbers") from None


def _decode(request: HttpRequest, body: Any, rest: memoryview | None, spec: ModelSpec, settings: Settings) -> Query:
    if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
        raise InvalidInstance('the body must be an object: {"inputs": [{"name": …}]}', ("inputs",))
    _require_keys(body, KEYS, ())
    parameters = _parameters(body, ("binary_data_output",), ())
    tensors = _tensors(body["inputs"], rest, spec)
    count = _rows(tensors, spec, settings)
    wanted = accept.choose(request.headers.get(accept.HEADER), (accept.JSON, accept.OCTETS))
    binary = _flag(parameters, "binary_data_output", wanted == accept.OCTETS, ())
    outputs = _outputs(body.get("outputs"), spec, binary)
    if outputs is None:
        outputs = {name: Output(binary) for name in named_heads(spec, request.headers)}
    inputs = {name: column(tensor, spec.inputs[name], settings) for name, tensor in tensors.items()}
    require_lengths(spec, inputs)
    return Query(count, inputs, tuple(outputs), encode=Reply(spec.name, spec.version, _id(body), outputs))


def _parted(request: HttpRequest) -> tuple[Body, memoryview | None]:
    """The JSON, and the bytes behind it."""
    length = request.headers.get(LENGTH_HEADER)
    if length is None:
        return request.body, None
    text = length.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 15 or not 0 < int(text) <= len(request.body):
        raise MalformedBody(
            f"Inference-Header-Content-Length is {length!r:.40}, the body has {len(request.body)} bytes: "
            "it tells how many of them are the JSON"
        )
    view = memoryview(request.body)
    return view[: int(text)], view[int(text) :]


def _tensors(inputs: list[Any], rest: memoryview | None, spec: ModelSpec) -> dict[str, TensorBody]:
    found: dict[str, TensorBody] = {}
    place = 0
    known = f"model {spec.name} {spec.version} (inputs: {', '.join(spec.inputs)})"
    for index, item in enumerate(inputs):
        loc: Place = ("inputs", index)
        name, shape = _named(item, loc), _shape(item, loc)
        if name not in spec.inputs:
            raise InvalidInstance(f"{name!r:.80} is no input of {known}", (*loc, "name"))
        if name in found:
            raise InvalidInstance(f"input {name!r} stands more than once", (*loc, "name"))
        _require_keys(item, ("name", "datatype", "shape", "parameters", "data"), loc)
        datatype = item.get("datatype")
        if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != "BYTES"):
            raise InvalidInstance(f"datatype must be BYTES or one of {', '.join(DATATYPES)}", (*loc, "datatype"))
        size = _parameters(item, ("binary_data_size",), loc).get("binary_data_size")
        data = item.get("data")
        if size is not None:
            data = _binary(rest, place, size, "data" in item, loc)
            place += size
        elif not isinstance(data, list):
            raise InvalidInstance('"data" must be a list, or binary_data_size tell where it is', (*loc, "data"))
        found[name] = TensorBody(name, datatype, shape, data, loc)
    if place != len(rest or b""):
        raise MalformedBody(f"{len(rest or b'')} bytes are behind the JSON, its tensors are {place}")
    for name in spec.inputs:
        if name not in found:
            raise InvalidInstance(f"input {name!r} is missing, an input of {known}", ("inputs",))
    return found


def _binary(rest: memoryview | None, place: int, size: Any, twice: bool, loc: Place) -> memoryview:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InvalidInstance("binary_data_size must be a number of bytes", (*loc, "parameters", "binary_data_size"))
    if twice:
        raise InvalidInstance('a tensor has "data" or binary_data_size, not both', (*loc, "data"))
    if rest is None or place + size > len(rest):
        raise MalformedBody(
            f"binary_data_size is {size}, and {0 if rest is None else len(rest) - place} bytes are left behind the "
            "JSON: Inference-Header-Content-Length tells where they begin",
            loc,
        )
    return rest[place : place + size]


def _rows(tensors: Mapping[str, TensorBody], spec: ModelSpec, settings: Settings) -> int:
    """The rows that all tensors have, by their shapes; nothing has been made of them yet."""
    counts = {name: tensor.shape[0] for name, tensor in tensors.items()}
    count = next(iter(counts.values()))
    for name, tensor in tensors.items():
        require_room(spec, counts[name], settings, (*tensor.loc, "shape"))
        if counts[name] != count:
            raise InvalidInstance(
                f"input {name!r} has {counts[name]} rows, and {next(iter(counts))!r} {count}: send as many of each",
                (*tensor.loc, "shape"),
            )
    return count


def _named(item: Any, loc: Place) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise InvalidInstance('a tensor is an object with a "name"', loc)
    return str(item["name"])


def _shape(item: Mapping[str, Any], loc: Place) -> tuple[int, ...]:
    shape = item.get("shape")
    whole = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**63 for size in shape)
    if not whole or not 1 <= len(shape) <= MOST_DIMENSIONS or prod(shape) >= 2**63:  # type: ignore[arg-type]
        raise InvalidInstance('"shape" must be a list of sizes, the number of rows first', (*loc, "shape"))
    return tuple(shape)  # type: ignore[arg-type]


def _outputs(outputs: Any, spec: ModelSpec, binary: bool) -> dict[str, Output] | None:
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list):
        raise InvalidInstance('"outputs" must be a list of {"name": <head>}', ("outputs",))
    found: dict[str, Output] = {}
    for index, item in enumerate(outputs):
        loc: Place = ("outputs", index)
        name = _named(item, loc)
        if name not in spec.heads:
            raise UnknownHead(
                f"head {name!r:.80} is not in model {spec.name} {spec.version} (heads: {', '.join(spec.heads)}): "
                'check "outputs"',
                (*loc, "name"),
            )
        if name in found:
            raise InvalidInstance(f"output {name!r} stands more than once", (*loc, "name"))
        _require_keys(item, ("name", "parameters"), loc)
        parameters = _parameters(item, ("binary_data", "classification"), loc)
        count = parameters.get("classification", 0)
        if type(count) is not int or count < 0 or ("classification" in parameters and count == 0):
            raise InvalidInstance("classification must be a whole number of 1 or more", (*loc, "parameters"))
        if count and not isinstance(spec.heads[name], ClassificationHead | MultilabelHead | OneShotHead):
            raise InvalidInstance(
                f"head {name!r} is of kind {spec.heads[name].kind}, which has no classes for each row: "
                "leave classification out",
                (*loc, "parameters", "classification"),
            )
        found[name] = Output(_flag(parameters, "binary_data", binary, loc), count)
    return found


def _parameters(item: Mapping[str, Any], known: Collection[str], loc: Place) -> Mapping[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidInstance('"parameters" must be an object', (*loc, "parameters"))
    _require_keys(parameters, known, (*loc, "parameters"))
    return parameters


def _require_keys(item: Mapping[str, Any], known: Collection[str], loc: Place) -> None:
    for key in item:
        if key not in known:
            raise UnknownOption(f"key {key!r:.60} is not known (keys: {', '.join(known)})", (*loc, key))


def _flag(parameters: Mapping[str, Any], key: str, default: bool, loc: Place) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InvalidInstance(f"{key} must be true or false", (*loc, "parameters", key))
    return value


def _id(body: Mapping[str, Any]) -> str | None:
    value = body.get("id")
    if value is not None and (not isinstance(value, str) or len(value) > LONGEST_ID):
        raise InvalidInstance(f'"id" must be a string of at most {LONGEST_ID} characters', ("id",))
    return value
