"""Messages of TorchServe's front end, read through a buffer."""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

from polyhead.serving.request import HttpRequest
from polyhead.serving.torchserve.fastpath.blocks import BODY, END, LENGTH, Blocks, field
from polyhead.serving.torchserve.incoming import Incoming, incoming

__all__ = ["CAPACITY", "LARGE", "Batch", "Reader"]

CAPACITY = 256 * 1024  # octets that one call of the kernel may bring
# Bodies up to this size are copied out of the buffer. For 3 KiB that costs 0.06 us more than a view, and every body has
# memory of its own: aligned, writable, and no reason to keep the buffer. Larger ones are received where they stay.
LARGE = 64 * 1024

LOAD, PREDICT = b"L", b"I"
UUID = LENGTH.pack(36)  # TorchServe's ids have this length
INT = struct.Struct(">i")


@dataclass(slots=True)
class Batch:
    """The requests of one message.

    Attributes:
        ids: TorchServe's, each behind its length, as they came.
        requests: in the same order.
    """

    ids: list[bytearray]
    requests: list[Incoming]


class Reader:
    """Reads one connection. Between messages nothing is under way, so reading ahead takes nothing from anybody."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray(CAPACITY)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # what was received and not yet read
        self._blocks = Blocks()

    def message(self) -> tuple[bytes, Any]:
        """The next message: its command, and a `Batch`, or what a load message says.

        Raises:
            ValueError: another command.
            SystemExit: the front end has gone.
        """
        command = bytes(self._take(1))
        if command == PREDICT:
            return command, self._batch()
        if command == LOAD:
            return command, self._load()
        raise ValueError(f"Invalid command: {command!r}")

    def _batch(self) -> Batch:
        batch = Batch([], [])
        self._recall(batch)
        while self._parse(batch):
            self._recall(batch)
        return batch

    def _recall(self, batch: Batch) -> None:
        """Take requests out of the buffer as long as they look like earlier ones."""
        buffer, blocks = self._buffer, self._blocks
        unpack = LENGTH.unpack_from
        start, end = self._start, self._end
        while buffer.startswith(UUID, start):
            head = start + 40
            block = blocks.last
            if not buffer.startswith(block.octets, head):
                found = blocks.find(buffer, head, end)
                if found is None:
                    break
                block = found
            length = head + len(block.octets)
            body = length + 4
            if body > end:
                break
            stop = body + unpack(buffer, length)[0]
            if stop + 4 > end:
                if stop + 4 - start > LARGE:
                    break
                self._start = start
                self._require(stop + 4 - start)
                start, end = self._start, self._end
                continue
            if not buffer.startswith(END, stop):  # a form of several parts
                break
            batch.ids.append(buffer[start:head])
            batch.requests.append(HttpRequest(buffer[body:stop], block.content_type, block.headers))
            start = stop + 4
        self._start = start

    def _parse(self, batch: Batch) -> bool:
        """Read one request field by field, whatever it looks like. False at the end of the message."""
        size = self._int()
        if size == -1:
            return False
        identity = self._take(size)
        fields = []
        while (size := self._int()) != -1:
            name = bytes(self._take(size))
            fields.append((name, bytes(self._take(self._int()))))
        parts: list[tuple[str, str, bytearray]] = []
        while (size := self._int()) != -1:
            part, media_type = self._take(size).decode(), self._take(self._int()).decode()
            parts.append((part, media_type, self._take(self._int())))
        headers: dict[str, Any] = {part: {"content-type": media_type} for part, media_type, _ in parts}
        headers |= {name.decode(): value.decode() for name, value in fields}
        request = incoming({part: value for part, _, value in parts}, headers)
        batch.ids.append(bytearray(LENGTH.pack(len(identity)) + identity))
        batch.requests.append(request)
        if isinstance(request, HttpRequest) and [part for part, _, _ in parts] == ["body"]:
            self._learn(fields, parts[0][1], request)
        return True

    def _learn(self, fields: list[tuple[bytes, bytes]], media_type: str, request: HttpRequest) -> None:
        if "body" not in request.headers:  # such a header hides the part's own media type
            self._blocks.learn(fields, END + BODY + field(media_type.encode()), request.content_type)

    def _load(self) -> dict[str, Any]:
        """What `ts.protocol.otf_message_handler` makes of a load message."""
        message: dict[str, Any] = {
            "modelName": self._take(self._int()),
            "modelPath": self._take(self._int()),
            "batchSize": self._int(),
            "handler": self._take(self._int()),
        }
        gpu = self._int()
        if gpu >= 0:
            message["gpu"] = gpu
        message["envelope"] = self._take(self._int())
        message["limitMaxImagePixels"] = self._take(1) != b"\0"
        return message

    def _int(self) -> int:
        self._require(4)
        (value,) = INT.unpack_from(self._buffer, self._start)
        self._start += 4
        return int(value)

    def _take(self, size: int) -> bytearray:
        """The next octets, in memory of their own; none for a negative size."""
        if size > LARGE:
            return self._take_large(size)
        size = max(0, size)
        self._require(size)
        self._start += size
        return self._buffer[self._start - size : self._start]

    def _take_large(self, size: int) -> bytearray:
        """As `_take`, received where they stay."""
        taken = bytearray(size)
        there = min(size, self._end - self._start)
        taken[:there] = self._view[self._start : self._start + there]
        self._start += there
        with memoryview(taken) as view:
            while there < size:
                there += self._receive(view[there:])
        return taken

    def _require(self, size: int) -> None:
        """Have some octets in the buffer, at most `CAPACITY`."""
        if self._end - self._start >= size:
            return
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + size > CAPACITY:
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        while self._end - self._start < size:
            self._end += self._receive(self._view[self._end :])

    def _receive(self, view: memoryview) -> int:
        count = self.connection.recv_into(view)
        if count == 0:
            sys.exit(0)  # the front end has gone: as TorchServe's own worker ends
        return count
