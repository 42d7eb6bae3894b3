"""`Content-Encoding`: compressed bodies, inflated piece by piece and never beyond a bound."""

from __future__ import annotations

import zlib
from dataclasses import replace

from polyhead.serving.errors import MalformedBody, PayloadTooLarge, UnsupportedMediaType
from polyhead.serving.request import HttpRequest

__all__ = ["HEADER", "inflated"]

HEADER = "content-encoding"
# zlib's window: 16 more is gzip's frame, 15 alone is zlib's own, which HTTP calls deflate.
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
TAKEN, PIECE = 1 << 16, 1 << 20  # bytes read and written at a time


def inflated(request: HttpRequest, limit: int) -> HttpRequest:
    """The request with the body as it was before it was compressed.

    Args:
        request: with the header `Content-Encoding`.
        limit: bytes that the inflated body may have.

    Raises:
        UnsupportedMediaType: it is compressed in a way that is not read, or more than once.
        MalformedBody: it is damaged, cut short, or something follows its end.
        PayloadTooLarge: it is larger than the limit; no more than the limit was inflated to find out.
    """
    coding = request.headers[HEADER].strip().lower()
    if coding in ("", "identity"):
        return request
    if coding not in WINDOWS:
        raise UnsupportedMediaType(
            f"Content-Encoding {coding!r:.60} is not read here: send the body plain, or as gzip or deflate"
        )
    return replace(request, body=_inflate(request.body, coding, limit))


def _inflate(body: bytes | bytearray | memoryview, coding: str, limit: int) -> bytes:
    stream = zlib.decompressobj(WINDOWS[coding])
    pieces: list[bytes] = []
    size = 0
    # A piece of the input, too: zlib copies what it has not read yet, each time.
    view = memoryview(body)
    for start in range(0, len(view), TAKEN):
        rest: bytes | memoryview = view[start : start + TAKEN]
        while rest and not stream.eof:
            try:
                piece = stream.decompress(rest, min(PIECE, limit + 1 - size))
            except zlib.error:
                raise MalformedBody(f"the body is no {coding}: it is damaged, or was not compressed") from None
            size += len(piece)
            if size > limit:
                raise PayloadTooLarge(f"the body is larger than {limit} bytes when inflated: send fewer rows at a time")
            pieces.append(piece)
            rest = stream.unconsumed_tail
        if stream.eof and (stream.unused_data or start + TAKEN < len(view)):
            raise MalformedBody(f"something follows the end of the {coding} body: compress it as one piece")
    # What zlib holds back until it is asked again is within the limit, or says that there is more.
    pieces.append(_rest(stream, limit - size))
    if not stream.eof:
        raise MalformedBody(f"the {coding} body is cut short: send all of it")
    return b"".join(pieces)


def _rest(stream: zlib._Decompress, room: int) -> bytes:
    if stream.eof:
        return b""
    try:
        piece = stream.decompress(b"", room + 1)
    except zlib.error:
        raise MalformedBody("the compressed body is damaged: send it again") from None
    if len(piece) > room:
        raise PayloadTooLarge("the body is larger than it may be when inflated: send fewer rows at a time")
    return piece
