"""One request as TorchServe's protocol carries it, to one of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from polyhead.serving.errors import MalformedBody, RequestError
from polyhead.serving.request import HttpRequest
from polyhead.serving.tracing import client_id

__all__ = ["BODY_KEYS", "Incoming", "incoming", "tags"]

# What came over the wire; why it cannot be read; or, as None, the management API's question for a description.
Incoming = HttpRequest | RequestError | None

# TorchServe passes what it cannot name, such as a form, under the client's own keys; a whole body is one of these.
BODY_KEYS = ("body", "data")


def incoming(entry: Mapping[str, Any], headers: Mapping[str, Any]) -> Incoming:
    """One request as TorchServe hands it over.

    Args:
        entry: parts by name.
        headers: by name in the client's casing; among them each part's own, by the part's name.
    """
    # The management API's `describe?customized=true` comes as a request with this header and without any body.
    if not entry and headers.get("describe") == "True":
        return None
    key = next((name for name in BODY_KEYS if name in entry), None)
    part = headers.get(key) if key is not None else None
    names = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    media_type = part["content-type"] if isinstance(part, dict) else names.get("content-type")
    media_type = (media_type or "").partition(";")[0].strip().lower()
    try:
        return HttpRequest(b"" if key is None else _raw(entry[key]), media_type, names)
    except (
        TypeError,
        ValueError,
    ) as error:  # TorchServe parsed what our own parser refuses: numbers beyond 64 bits, lone surrogates
        return MalformedBody(f"the body is not JSON: {error}")


def _raw(body: Any) -> bytes | bytearray:
    """A body's bytes. Only a TorchServe that runs without `decode_input_request=false` hands over anything else."""
    if isinstance(body, bytes | bytearray):
        return body
    if isinstance(body, str):
        return body.encode()
    return b"" if body is None else orjson.dumps(body)


def tags(requests: Sequence[Incoming]) -> list[str | None]:
    """The clients' own ids of some requests; None for one without."""
    return [client_id(request.headers) if isinstance(request, HttpRequest) else None for request in requests]
