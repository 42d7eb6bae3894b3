"""The JSON of the contract: `{"instances": […], "heads": […], "options": {…}}` in, `{"predictions": […]}` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from polyhead.models.spec import ImageInput, ModelSpec
from polyhead.serving.errors import (
    InvalidInstance,
    MalformedBody,
    RequestError,
    UnknownOption,
)
from polyhead.serving.protocol import rows
from polyhead.serving.protocol.columns import require_room
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.request import HttpRequest, HttpResponse, Query, choose_heads, parse_options
from polyhead.serving.settings import Settings

if TYPE_CHECKING:
    from polyhead.serving.answers import HeadAnswers

__all__ = ["MEDIA_TYPES", "decode", "document", "encode", "encode_error"]

MEDIA_TYPES = ("application/json",)
KEYS = ("instances", "heads", "options")


def decode(request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:
    """A JSON body to a query.

    Raises:
        RequestError: naming the place in the body.
    """
    try:
        return _decode(request, spec, settings)
    except RecursionError:  # orjson allows deeper nesting than Python's stack
        raise MalformedBody("the body is nested too deeply: send flat lists of numbers") from None


def _decode(request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidInstance('the body must be an object: {"instances": [...]}')
    for key in body:
        if key not in KEYS:
            raise UnknownOption(f"key {key!r:.60} is not known (keys: {', '.join(KEYS)})", (key,))
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise InvalidInstance('"instances" must be a list of one row or more', ("instances",))
    require_room(spec, len(instances), settings, ("instances",))
    heads = choose_heads(spec, body.get("heads"))
    options = parse_options(body.get("options"))
    columns = _columns(spec, instances)
    inputs = {n: rows.parse(n, spec.inputs[n], values, settings.max_image_pixels) for n, values in columns.items()}
    require_lengths(spec, inputs)
    return Query(len(instances), inputs, heads, options)


def _columns(spec: ModelSpec, instances: Sequence[Any]) -> dict[str, list[Any]]:
    """Instances to one list of values per input. Where there is one input, an instance may be its bare value."""
    only = next(iter(spec.inputs)) if len(spec.inputs) == 1 else None
    columns: dict[str, list[Any]] = {name: [] for name in spec.inputs}
    for index, instance in enumerate(instances):
        if only is not None and not _names(instance, spec, only):
            columns[only].append(instance)
            continue
        if not isinstance(instance, dict):
            raise InvalidInstance(f"a row must be an object with {', '.join(spec.inputs)}", ("instances", index))
        for key in instance:
            if key not in columns:
                raise InvalidInstance(
                    f"input {key!r:.60} is not in model {spec.name} (inputs: {', '.join(spec.inputs)})",
                    ("instances", index, key),
                )
        for name, values in columns.items():
            if name not in instance:
                raise InvalidInstance(f"input {name!r} is missing", ("instances", index, name))
            values.append(instance[name])
    return columns


def _names(instance: Any, spec: ModelSpec, only: str) -> bool:
    """Whether an instance names its inputs, or is the bare value of the only one."""
    if not isinstance(instance, dict):
        return False
    return not (isinstance(spec.inputs[only], ImageInput) and set(instance) == {"b64"})


def encode(query: Query, answers: Mapping[str, HeadAnswers], parts: Mapping[str, slice]) -> HttpResponse:
    """Answers by head, one object per row; see `Encode`."""
    columns = [answers[head].rows(part, query.options) for head, part in parts.items()]
    rows_by_head = [dict(zip(query.heads, row, strict=True)) for row in zip(*columns, strict=True)]
    return HttpResponse(200, "OK", document(rows_by_head, query.single))


def document(answers: Sequence[Mapping[str, Any]], single: bool) -> bytes:
    """Answers by head, one mapping per row, to a JSON body; numpy arrays and numbers are written as they are.

    The caller has made sure that every number is finite: orjson would write the others as null.
    """
    content = answers[0] if single else {"predictions": answers}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_error(error: RequestError) -> bytes:
    """An error to its JSON body."""
    return orjson.dumps(error.body())
