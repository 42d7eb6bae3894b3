"""The answers of one batch as one message to TorchServe's front end."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from polyhead.serving.request import HttpResponse
from polyhead.serving.torchserve.fastpath.blocks import END, LENGTH, field
from polyhead.serving.tracing import TAG_HEADER

__all__ = ["HEADS", "Writer"]

HEADS = 256  # kept at most: a response's headers may come from a client
STATUS = struct.Struct(">i")
PREFIX = STATUS.pack(200) + field(b"Prediction success")

TAG = field(TAG_HEADER.encode())

Header = tuple[str, str]


class Writer:
    """Writes what TorchServe's `create_predict_response` would write for the same responses.

    Args:
        headers: of every response, before its own.
    """

    def __init__(self, headers: Iterable[Header] = ()) -> None:
        self._headers = tuple(headers)
        self._heads: dict[tuple[object, ...], Head] = {}

    def message(
        self, ids: Sequence[bytes | bytearray], responses: Sequence[HttpResponse], tags: Sequence[str | None]
    ) -> bytes:
        """One message.

        Args:
            ids: of the requests, each behind its length.
            responses: one for each; phrases and content types in ASCII.
            tags: one for each, the clients' own ids.
        """
        heads, pack = self._heads, LENGTH.pack
        parts: list[bytes | bytearray] = [PREFIX]
        for identity, response, tag in zip(ids, responses, tags, strict=True):
            key = (response.status, response.phrase, response.content_type, response.headers)
            head = heads.get(key)
            if head is None:
                head = self._head(response)
                if len(heads) == HEADS:
                    heads.clear()
                heads[key] = head
            body = response.body
            parts += (identity, head.whole if tag is None else head.tagged(tag), pack(len(body)), body)
        parts.append(END)
        return b"".join(parts)

    def _head(self, response: HttpResponse) -> Head:
        headers = {"content-type": response.content_type, **dict(self._headers), **dict(response.headers)}
        before = field(headers["content-type"].encode()) + STATUS.pack(response.status)
        before += field(response.phrase.encode())
        return Head(before, len(headers), b"".join(field(text.encode()) for pair in headers.items() for text in pair))


class Head:
    """Content type, status, phrase and headers: all that stands between a response's id and its body.

    Args:
        before: what stands before the number of headers.
        count: of headers.
        headers: names and values.
    """

    __slots__ = ("_before", "_count", "_headers", "whole")

    def __init__(self, before: bytes, count: int, headers: bytes) -> None:
        self._before, self._count, self._headers = before, count, headers
        self.whole = before + LENGTH.pack(count) + headers

    def tagged(self, tag: str) -> bytes:
        """With the client's id as the last header."""
        return self._before + LENGTH.pack(self._count + 1) + self._headers + TAG + field(tag.encode())
