"""The fast path beside TorchServe's own codec: same bytes in, same requests; same responses, same bytes."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import tracemalloc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polyhead.serving.request import HttpRequest, HttpResponse
from polyhead.serving.torchserve.fastpath.blocks import LARGEST_BLOCK, TEMPLATES
from polyhead.serving.torchserve.fastpath.reader import CAPACITY, LARGE, Batch, Reader
from polyhead.serving.torchserve.fastpath.writer import HEADS, Writer
from polyhead.serving.torchserve.incoming import incoming
from polyhead.serving.tracing import TAG_HEADER
from tests.unit.serving.torchserve.frontend import CLIENT, UUID, Part, Sent, load_message, posted, predict_message

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it reads its version
    from ts.context import Context, RequestProcessor
    from ts.protocol import otf_message_handler as original
    from ts.service import Service

# Text that Java can send: no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.one_of(
    st.sampled_from(
        [*CLIENT, "content-type", "CONTENT-LENGTH", "X-Request-Id", "traceparent", "body", "Body", "describe"]
    ),
    TEXT,
)
VALUES = st.one_of(st.sampled_from(["", "True", "False", "3072", "text/plain; charset=utf-8"]), TEXT)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda size, fill: bytes([fill]) * size, st.sampled_from([1, 3072, LARGE, LARGE + 1]), st.integers(0, 255)
    ),
)
MEDIA = st.sampled_from(["application/json", "application/octet-stream", "Text/Plain; charset=x", "", "é"])
PARTS = st.builds(Part, st.one_of(st.sampled_from(["body", "data", "a"]), TEXT), MEDIA, BODIES)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=9)
ANY = st.builds(Sent, st.one_of(TEXT, st.uuids().map(str)), HEADERS, st.lists(PARTS, max_size=3))
# What clients send: the same headers, a few of their values changed.
USUAL = st.builds(
    lambda number, body, media, changed: posted(number, body, media, **changed),
    st.integers(0, 9999),
    BODIES,
    MEDIA,
    st.dictionaries(st.sampled_from(["Content-Length", "X-Request-Id", "Accept", "body"]), VALUES, max_size=2),
)
MESSAGES = st.lists(st.lists(st.one_of(USUAL, ANY), max_size=8), min_size=1, max_size=4)


@contextmanager
def arriving(octets: bytes, cuts: Sequence[int] = ()) -> Iterator[socket.socket]:
    """A connection on which octets arrive in pieces; the other end then closes."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with closing(theirs):
            for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(octets)], strict=True):
                theirs.sendall(octets[start:end])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield ours
    finally:
        ours.close()
        sender.join()


def by_torchserve(octets: bytes, count: int) -> list[tuple[list[bytes], list[object]]]:
    """Ids and requests of some messages, read by TorchServe and folded by our handler's slow path."""
    batches = []
    with patch.dict(os.environ, {"TS_DECODE_INPUT_REQUEST": "false"}), arriving(octets) as connection:
        for _ in range(count):
            command, message = original.retrieve_msg(connection)
            assert command == b"I"
            headers, entries, ids = Service.retrieve_data_for_inference(message)
            requests = [incoming(e, h.get_request_properties()) for e, h in zip(entries, headers, strict=True)]
            batches.append(([name.encode() for name in ids.values()], requests))
    return batches


def read(reader: Reader) -> tuple[list[bytes], list[object]]:
    command, batch = reader.message()
    assert command == b"I"
    assert isinstance(batch, Batch)
    assert all(struct.unpack_from("!i", identity)[0] == len(identity) - 4 for identity in batch.ids)
    return [bytes(identity[4:]) for identity in batch.ids], batch.requests


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MESSAGES, st.randoms(use_true_random=False))
@example([[Sent("a", (), (Part("body", "", b"x"),))], [Sent("", (), ())]], random.Random(0))
def test_the_same_octets_are_the_same_requests(messages, chance):
    octets = b"".join(map(predict_message, messages))
    cuts = [chance.randrange(len(octets) + 1) for _ in range(chance.randrange(6))]
    expected = by_torchserve(octets, len(messages))
    with arriving(octets, cuts) as connection:
        reader = Reader(connection)
        assert [read(reader) for _ in messages] == expected
        with pytest.raises(SystemExit) as ended:
            reader.message()
    assert ended.value.code == 0


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_a_message_may_arrive_in_any_two_pieces(cut):
    batches = [[posted(i, b"x" * 30, **{"Content-Length": str(i)}) for i in range(3)] for _ in range(2)]
    octets = b"".join(map(predict_message, batches))
    with arriving(octets, [cut, cut + len(octets) // 2]) as connection:
        reader = Reader(connection)
        assert [read(reader) for _ in batches] == by_torchserve(octets, 2)


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, LARGE + 1, CAPACITY, 3 * CAPACITY + 1])
def test_bodies_of_any_size_have_memory_of_their_own(size):
    bodies = [np.random.default_rng(i).bytes(size) for i in range(3)]
    octets = predict_message([posted(i, body) for i, body in enumerate(bodies)]) * 2
    with arriving(octets, [len(octets) // 2]) as connection:
        reader = Reader(connection)
        first, second = read(reader)[1], read(reader)[1]
    for request, body in zip([*first, *second], bodies * 2, strict=True):
        assert isinstance(request.body, bytearray)
        assert request.body == body
        if size:
            array = np.frombuffer(request.body, np.uint8)
            assert array.flags.writeable
            assert array.ctypes.data % 8 == 0


def test_headers_that_repeat_are_shared_and_those_that_vary_are_not():
    sent = [posted(i, b"x", **{"Content-Length": length}) for i, length in enumerate("11234")]
    with arriving(predict_message(sent)) as connection:
        requests = read(Reader(connection))[1]
    assert requests[0].headers == requests[1].headers
    assert [request.headers["content-length"] for request in requests] == list("11234")
    assert requests[3].headers is not requests[4].headers
    sent = [posted(i, b"x") for i in range(4)]
    with arriving(predict_message(sent)) as connection:
        requests = read(Reader(connection))[1]
    assert requests[1].headers is requests[2].headers is requests[3].headers


def test_what_clients_can_make_a_worker_keep_is_bounded():
    long = "v" * (LARGEST_BLOCK // 2)
    sent = [posted(i, b"x", **{f"x_{i}_{j}": long for j in range(3)}) for i in range(4)]  # too large to keep
    sent += [posted(i, b"x", **{f"x_{i}": long}) for i in range(60)]
    sent += [posted(i, b"x", x_long=long[:i]) for i in range(0, 2000, 50)]
    sent += [posted(0, b"x", **{f"x_{j}": "" for j in range(3000)})]
    with arriving(predict_message(sent) * 2) as connection:
        reader = Reader(connection)
        tracemalloc.start()
        try:
            for _ in range(2):
                assert len(read(reader)[1]) == len(sent)
            assert tracemalloc.get_traced_memory()[0] < (TEMPLATES + 1) * 4 * LARGEST_BLOCK
        finally:
            tracemalloc.stop()


def test_a_long_value_in_a_header_that_varies_is_read_as_well():
    sizes = [1, 2, 100, LARGEST_BLOCK, LARGE - 10, LARGE + 10, CAPACITY - 200, CAPACITY, 2 * CAPACITY, 3]
    octets = predict_message([posted(i, b"x" * LARGE, x_long="v" * size) for i, size in enumerate(sizes)])
    with arriving(octets) as connection:
        assert [read(Reader(connection))] == by_torchserve(octets, 1)


def test_a_load_message_is_read_as_torchserve_reads_it():
    loads = [load_message("m", "/m", 64, "h.py"), load_message("é", "/" + "x" * 5000, 1, "h.py", 3, "body")]
    for octets in loads:
        with arriving(octets) as connection:
            expected = original.retrieve_msg(connection)
        with arriving(predict_message([posted(0, b"x")]) + octets + predict_message([])) as connection:
            reader = Reader(connection)
            read(reader)
            assert reader.message() == expected
            assert read(reader) == ([], [])


def test_another_command_is_an_error():
    with arriving(b"X") as connection, pytest.raises(ValueError, match="Invalid command"):
        Reader(connection).message()


@pytest.mark.parametrize("keep", [0, 1, 30, 200, -1])
def test_a_front_end_that_goes_away_ends_the_worker(keep):
    octets = predict_message([posted(0, b"x" * 100), posted(1, b"x" * 2 * LARGE)])
    with arriving(octets[:keep]) as connection, pytest.raises(SystemExit) as ended:
        Reader(connection).message()
    assert ended.value.code == 0


def test_a_learnt_block_matches_nothing_but_itself():
    sent = predict_message([posted(0, b"x")])[1 + 40 :]
    with arriving(predict_message([posted(0, b"x")])) as connection:
        reader = Reader(connection)
        read(reader)
    block = reader._blocks.find(bytearray(sent), 0, len(sent))
    assert sent.startswith(block.octets)
    for place in range(len(block.octets)):
        wrong = bytearray(sent)
        wrong[place] ^= 1
        found = reader._blocks.find(wrong, 0, len(wrong))
        assert found is None
        assert reader._blocks.find(bytearray(sent), 0, place) is None


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
RESPONSES = st.builds(
    HttpResponse,
    st.integers(100, 599),
    ASCII,
    st.binary(max_size=30),
    st.one_of(st.just("application/json"), ASCII),
    # Its content type TorchServe counts in characters where it should count bytes.
    st.lists(
        st.tuples(st.just("content-type"), ASCII) | st.tuples(st.one_of(st.sampled_from(["X-A", "x-a"]), TEXT), TEXT),
        max_size=3,
    ).map(tuple),
)


def by_context(ids: Sequence[str], responses: Sequence[HttpResponse], headers, tags) -> bytes:
    """The message that TorchServe makes of what our handler's slow path sets on its context."""
    context = Context("m", "/", {}, 32, None, "0.12.0")
    context.request_processor = [RequestProcessor({}) for _ in ids]
    for index, (response, tag) in enumerate(zip(responses, tags, strict=True)):
        context.set_response_status(response.status, response.phrase, index)
        context.set_response_content_type(index, response.content_type)
        for name, value in (*headers, *response.headers, *([] if tag is None else [(TAG_HEADER, tag)])):
            context.set_response_header(index, name, value)
    bodies = [response.body for response in responses]
    return bytes(
        original.create_predict_response(bodies, dict(enumerate(ids)), "Prediction success", 200, context=context)
    )


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(TEXT, RESPONSES, st.none() | ASCII), max_size=6),
    st.sampled_from([(), (("X-A", "é"), ("B", ""))]),
)
def test_the_same_responses_are_the_same_octets(answers, headers):
    ids, responses, tags = [list(column) for column in zip(*answers, strict=True)] or [[], [], []]
    ours = [struct.pack("!i", len(identity.encode())) + identity.encode() for identity in ids]
    writer = Writer(headers)
    expected = by_context(ids, responses, headers, tags)
    assert writer.message(ours, responses, tags) == expected
    assert writer.message(ours, responses, tags) == expected  # from memory


def test_the_heads_that_a_writer_keeps_are_bounded():
    writer = Writer()
    for number in range(3 * HEADS):
        response = HttpResponse(200, "OK", b"x", headers=(("X-Number", str(number)),))
        (identity,) = [struct.pack("!i", 36) + UUID.format(1).encode()]
        assert str(number).encode() in writer.message([identity], [response], [None])
        assert len(writer._heads) <= HEADS


def test_requests_are_ours():
    with arriving(predict_message([posted(0, b"x", "Text/Plain; charset=utf-8", url_path="a/b")])) as connection:
        (request,) = read(Reader(connection))[1]
    assert isinstance(request, HttpRequest)
    assert (request.content_type, request.body, request.headers["url_path"]) == ("text/plain", b"x", "a/b")
