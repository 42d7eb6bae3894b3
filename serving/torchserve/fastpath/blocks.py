"""Header blocks that were seen before, recognised as bytes.

Clients send the same headers again and again. A request's headers and the start of its body's parameter (its name, its
media type) are one run of octets, in which every field stands behind its length: where a request begins with the octets
of an earlier one, it reads as the earlier one did. So one comparison stands for parsing a dozen fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["BODY", "END", "LARGEST_BLOCK", "LENGTH", "TEMPLATES", "Block", "Blocks", "field"]

END = b"\xff\xff\xff\xff"  # -1: the end of a list
LENGTH = struct.Struct(">I")
BODY = LENGTH.pack(4) + b"body"  # the part that a whole body is
# Both bound what a client can make us keep.
TEMPLATES = 32
LARGEST_BLOCK = 16_384  # octets

Header = tuple[bytes, bytes]  # name and value


@dataclass(slots=True)
class Block:
    """The headers of a request and the start of its only part, up to the length of the body.

    Attributes:
        octets: as they came.
        content_type: as in `HttpRequest`.
        headers: as in `HttpRequest`; shared by all requests with this block.
    """

    octets: bytes
    content_type: str
    headers: Mapping[str, str]


class Template:
    """Blocks that differ in some headers' values, such as the body's length or an id.

    Args:
        fields: the headers, names distinct in any casing.
        varying: places among them of those whose values differ.
        tail: what follows the headers: the end of their list, the part's name and media type.
        content_type: as in `HttpRequest`.
    """

    __slots__ = ("_constant", "_first", "_last", "_rest", "content_type", "fields", "tail", "varying")

    def __init__(self, fields: Sequence[Header], varying: Iterable[int], tail: bytes, content_type: str) -> None:
        self.fields, self.varying, self.tail, self.content_type = fields, frozenset(varying), tail, content_type
        # In the order of the headers, for a reader of the mapping to find it as it was sent.
        self._constant: dict[str, str] = {}
        chunks, names = [bytearray()], []
        for index, (name, value) in enumerate(fields):
            chunks[-1] += field(name)
            lowered = name.decode().lower()
            self._constant[lowered] = value.decode()
            if index in self.varying:
                names.append(lowered)
                chunks.append(bytearray())
            else:
                chunks[-1] += field(value)
        chunks[-1] += tail
        self._first = bytes(chunks[0])
        self._rest = [(name, bytes(chunk)) for name, chunk in zip(names, chunks[1:], strict=True)]
        octets = b"".join(field(octets) for pair in fields for octets in pair) + tail
        self._last = Block(octets, content_type, self._constant)

    def match(self, buffer: bytearray, start: int, end: int) -> Block | None:
        """The block that begins at a place of the buffer; None where it is none of these, or not all there.

        Args:
            buffer: its octets from `end` on are old and mean nothing.
        """
        last = self._last
        if buffer.startswith(last.octets, start):
            return last if start + len(last.octets) <= end else None
        if not buffer.startswith(self._first, start):
            return None
        at = start + len(self._first)
        headers = self._constant.copy()
        for name, chunk in self._rest:
            value = at + 4
            if value > end:
                return None
            at = value + LENGTH.unpack_from(buffer, at)[0]
            if at > end or not buffer.startswith(chunk, at):
                return None
            headers[name] = buffer[value:at].decode()
            at += len(chunk)
        if at > end or at - start > LARGEST_BLOCK:
            return None
        self._last = Block(bytes(buffer[start:at]), self.content_type, headers)
        return self._last


class Blocks:
    """The header blocks of one connection.

    Attributes:
        last: the one found last.
    """

    def __init__(self) -> None:
        self.last = Block(END + BODY + field(b""), "", {})
        self._templates: list[Template] = []  # those found last come first

    def find(self, buffer: bytearray, start: int, end: int) -> Block | None:
        """The block that begins at a place of the buffer, if one like it was learnt; see `Template.match`."""
        for place, template in enumerate(self._templates):
            block = template.match(buffer, start, end)
            if block is not None:
                self.last = block
                if place:
                    self._templates.insert(0, self._templates.pop(place))
                return block
        return None

    def learn(self, fields: Sequence[Header], tail: bytes, content_type: str) -> None:
        """Remember a request's headers. Where only values differ from earlier ones, these vary from now on."""
        if sum(len(name) + len(value) + 8 for name, value in fields) + len(tail) > LARGEST_BLOCK:
            return
        names = [name for name, _ in fields]
        if len({name.decode().lower() for name in names}) < len(names):
            return  # which value counts depends on the others: nothing to learn
        for place, known in enumerate(self._templates):
            if known.tail == tail and [name for name, _ in known.fields] == names:
                pairs = zip(known.fields, fields, strict=True)
                varying = known.varying.union(index for index, (old, new) in enumerate(pairs) if old != new)
                self._templates[place] = Template(fields, varying, tail, content_type)
                return
        self._templates = [Template(fields, (), tail, content_type), *self._templates[: TEMPLATES - 1]]


def field(octets: bytes) -> bytes:
    """Octets behind their length, as the protocol has every field."""
    return LENGTH.pack(len(octets)) + octets
