"""`X-Polyhead-Options`: the options of a request whose body is no JSON, as a JSON object."""

from __future__ import annotations

import orjson

from polyhead.serving.errors import MalformedBody
from polyhead.serving.request import Options, parse_options

__all__ = ["OPTIONS_HEADER", "named_options"]

OPTIONS_HEADER = "x-polyhead-options"


def named_options(header: str) -> Options:
    """The options that a header names.

    Raises:
        MalformedBody: it is not JSON.
        UnknownOption: a key is not known.
        InvalidInstance: a value is of the wrong type.
    """
    try:
        values = orjson.loads(header)
    except orjson.JSONDecodeError:
        raise MalformedBody('X-Polyhead-Options is not JSON: write it as {"raw": true}', ("options",)) from None
    return parse_options({} if values is None else values)
