"""Bodies of requests: read whole, each of them bounded, and all that are not answered yet together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from polyhead.serving.errors import PayloadTooLarge
from polyhead.serving.rayserve.refusals import NotReady, QueueFull, Slow

__all__ = ["Bodies"]

ROOM = 512 * 1024 * 1024  # bytes of all bodies that are being received, wait or are being answered


class Bodies:
    """Reads bodies.

    Args:
        most: bytes of one.
        seconds: until it has to be here.
        room: bytes of all of them together; at least one always has room.
    """

    def __init__(self, most: int, seconds: float, room: int = ROOM) -> None:
        self._most, self._seconds, self._room = most, seconds, max(room, most)
        self.held = (
            0  # bytes that have come: what is only announced would let a client that sends nothing take all room
        )

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, which counts until the context ends.

        Raises:
            PayloadTooLarge: it is longer than one may be.
            QueueFull: together with the others it is more than there is room for.
            Slow: it did not come in time.
            NotReady: the client has gone.
        """
        length = request.headers.get("content-length", "")
        self._admit(0, int(length) if length.isdecimal() else 0)
        parts: list[bytes] = []
        try:
            await self._read(request, parts)
            yield b"".join(parts)
        finally:
            self.held -= sum(map(len, parts))

    async def _read(self, request: Request, parts: list[bytes]) -> None:
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    self._admit(size, len(part))
                    parts.append(part)
                    size += len(part)
                    self.held += len(part)
        except TimeoutError:
            raise Slow("the request did not arrive in time: send it again, and faster") from None
        except ClientDisconnect:
            raise NotReady("the client has gone") from None

    def _admit(self, size: int, more: int) -> None:
        """Whether a body of which `size` bytes are here may have so many more."""
        if size + more > self._most:
            raise PayloadTooLarge(f"the body has more than {self._most} bytes: send fewer rows in a request")
        if self.held + more > self._room:
            raise QueueFull("as many bytes wait as may: send this request again a little later")
