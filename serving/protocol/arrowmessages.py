"""The messages of an Arrow stream, looked at before their columns are made: how many rows, and how large they become.

A compressed buffer says itself how large it is, and a decoder allocates what it says. The layout is that of Arrow's
`Message.fbs`: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

import struct

import pyarrow as pa

__all__ = ["inflated_size"]

# Places of fields in their tables, and values of the union `MessageHeader`.
HEADER_TYPE, HEADER = 1, 2
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
DATA = 1  # of a dictionary batch
BUFFERS, COMPRESSION = 2, 3  # of a record batch


def inflated_size(stream: pa.Buffer) -> int:
    """Bytes that the compressed buffers of a stream say they are when they are inflated.

    Raises:
        pyarrow.ArrowInvalid: it is no stream.
        struct.error: a message lies about its own size.
    """
    size = 0
    for message in pa.ipc.MessageReader.open_stream(stream):
        if message.body is not None:
            size += _message_size(memoryview(message.metadata), memoryview(message.body))
    return size


def _message_size(metadata: memoryview, body: memoryview) -> int:
    (root,) = struct.unpack_from("<I", metadata, 0)
    place = _field(metadata, root, HEADER_TYPE)
    kind = metadata[place] if place else 0
    table = _follow(metadata, _field(metadata, root, HEADER))
    if kind == DICTIONARY_BATCH:
        table = _follow(metadata, _field(metadata, table, DATA))
    elif kind != RECORD_BATCH:
        return 0
    if not _field(metadata, table, COMPRESSION):
        return 0
    vector = _follow(metadata, _field(metadata, table, BUFFERS))
    (count,) = struct.unpack_from("<I", metadata, vector)
    size = 0
    for index in range(count):
        start, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * index)
        if length >= 8:  # an empty buffer has no size in front
            (inflated,) = struct.unpack_from("<q", body, start)
            size += max(inflated, 0)  # -1 says that this buffer is not compressed
    return size


def _field(data: memoryview, table: int, index: int) -> int:
    """Where a table's field stands; 0 where it is left out."""
    (back,) = struct.unpack_from("<i", data, table)
    (size,) = struct.unpack_from("<H", data, table - back)
    if 4 + 2 * index >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, table - back + 4 + 2 * index)
    return table + offset if offset else 0


def _follow(data: memoryview, place: int) -> int:
    (offset,) = struct.unpack_from("<I", data, place)
    return int(place + offset)
