"""What the front door itself answers: one JSON for each status, in the words of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from polyhead.serving.frontdoor.settings import FrontDoorSettings

__all__ = ["RETRY_AFTER", "Refusal", "refusals"]

RETRY_AFTER = 1  # seconds: a batch takes milliseconds, a worker that died a few seconds


@dataclass(frozen=True)
class Refusal:
    """An answer of the door.

    Attributes:
        status: as the client sees it.
        type: for programs.
        error: what, got, fix.
    """

    status: int
    type: str
    error: str

    @property
    def body(self) -> str:
        """The JSON of the contract."""
        return orjson.dumps({"error": self.error, "type": self.type, "loc": []}).decode()

    @property
    def again(self) -> bool:
        """Whether the client shall come again, after `RETRY_AFTER`."""
        return self.status in (429, 503)


def refusals(settings: FrontDoorSettings) -> dict[int, Refusal]:
    """By nginx's own status, what the client gets; nginx has some for itself: 494 to 497.

    Args:
        settings: whose limits the messages name.
    """
    max_body_bytes, max_header_bytes = settings.max_body_bytes, settings.max_header_bytes
    unavailable = Refusal(503, "unavailable", "the model has no worker or too many requests wait: send it again later")
    malformed = Refusal(400, "malformed_request", "the request is not HTTP/1.1 as it should be: check method, headers")
    header = Refusal(
        431, "header_too_large", f"a header is longer than {max_header_bytes} bytes, or all are: send fewer"
    )
    return {
        400: malformed,
        401: Refusal(401, "unauthorized", _missing(settings)),
        403: Refusal(403, "forbidden", "this address may not read that: ask whoever runs the server"),
        404: Refusal(404, "not_found", "nothing is here: check path, model and version; /v2/models lists the models"),
        405: Refusal(405, "method_not_allowed", "this path takes another method: see the header Allow"),
        408: Refusal(408, "request_timeout", "the request did not arrive in time: send it again, and faster"),
        411: Refusal(411, "length_required", "the body's length is missing: send Content-Length"),
        413: Refusal(
            413, "payload_too_large", f"the body is longer than {max_body_bytes} bytes: send fewer rows in a request"
        ),
        414: Refusal(
            414, "uri_too_long", f"the address is longer than {max_header_bytes} bytes: put the rows into the body"
        ),
        415: Refusal(415, "unsupported_media_type", "this media type is not read: see /docs"),
        429: Refusal(429, "too_many_requests", "this client sends too many requests: wait, and send it again"),
        494: header,
        495: Refusal(400, "client_certificate", "the client's certificate was refused: show one that is trusted here"),
        496: Refusal(400, "client_certificate", "a client's certificate is required: show one that is trusted here"),
        497: Refusal(400, "https_required", "plain HTTP was sent to an HTTPS port: use https://"),
        500: Refusal(500, "internal_error", "the server failed on this request and has logged it: send it again"),
        501: Refusal(501, "not_implemented", "the server does not know this method or transfer encoding"),
        502: unavailable,
        503: unavailable,
        504: Refusal(504, "timeout", "the model did not answer in time: send fewer rows, or again later"),
        505: Refusal(505, "http_version", "only HTTP/1.0 and HTTP/1.1 are spoken here"),
        507: unavailable,
    }


def _missing(settings: FrontDoorSettings) -> str:
    """What a client shall show, of whom neither key nor certificate is known."""
    key = "send a key that is known here as Authorization: Bearer KEY, or X-Api-Key: KEY"
    certificate = "show a certificate that is trusted here"
    if not settings.client_ca:
        return f"no known key came with the request: {key}"
    if not settings.api_keys:
        return f"no certificate came with the connection: {certificate}"
    both = "or" if settings.client_certificate == "optional" else "and"
    return f"key or certificate are missing: {certificate}, {both} {key}"
