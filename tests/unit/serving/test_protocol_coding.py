from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.serving.errors import RequestError
from polyhead.serving.protocol.coding import inflated
from polyhead.serving.request import HttpRequest

LIMIT = 3_000_000


def body_of(data: bytes, coding: str, limit: int = LIMIT) -> bytes:
    request = inflated(HttpRequest(data, "application/json", {"content-encoding": coding}), limit)
    assert request.content_type == "application/json"
    return bytes(request.body)


def refusal(data: bytes, coding: str, limit: int = LIMIT) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        body_of(data, coding, limit)
    return caught.value.status, caught.value.type


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.binary(max_size=2000), times=st.sampled_from([0, 1, 40, 700]), view=st.booleans())
def test_what_was_compressed_comes_back(data, times, view):
    whole = data * times
    wrap = memoryview if view else bytes
    assert body_of(wrap(gzip.compress(whole)), "gzip") == whole
    assert body_of(wrap(gzip.compress(whole)), " X-GZIP ") == whole
    assert body_of(wrap(zlib.compress(whole)), "deflate") == whole
    assert body_of(whole, "identity") == whole


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_bound_is_exact(over):
    data = gzip.compress(b"ab" * 600_000)
    limit = 1_200_000 - over
    if over <= 0:
        assert len(body_of(data, "gzip", limit)) == 1_200_000
    else:
        assert refusal(data, "gzip", limit) == (413, "payload_too_large")


def test_a_bomb_costs_no_more_than_the_bound():
    bomb = gzip.compress(bytes(300_000_000))
    assert len(bomb) < 300_000
    tracemalloc.start()
    try:
        assert refusal(bomb, "gzip") == (413, "payload_too_large")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * LIMIT


@pytest.mark.parametrize(
    ("data", "coding", "status"),
    [
        (b"{}", "gzip", 400),
        (b"", "gzip", 400),
        (gzip.compress(b"hello" * 50, mtime=0)[:-1], "gzip", 400),
        (gzip.compress(b"hello" * 50, mtime=0)[:-9], "gzip", 400),
        (gzip.compress(b"hello", mtime=0)[:-5] + b"\0\0\0\0\0", "gzip", 400),
        (gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0), "gzip", 400),
        (gzip.compress(b"a", mtime=0) + b"\n", "gzip", 400),
        (gzip.compress(b"a", mtime=0), "deflate", 400),
        (zlib.compress(b"a"), "gzip", 400),
        (b"{}", "br", 415),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "gzip, gzip", 415),
        (b"{}", "zstd", 415),
    ],
)
def test_what_is_damaged_or_not_read_is_refused(data, coding, status):
    kind = {400: "malformed_body", 415: "unsupported_media_type"}[status]
    assert refusal(data, coding) == (status, kind)


@settings(max_examples=100, deadline=None, database=None)
@given(at=st.integers(0, 60), new=st.binary(max_size=4), rest=st.binary(max_size=20))
def test_a_damaged_body_is_read_or_refused(at, new, rest):
    data = gzip.compress(b"the quick brown fox" * 3, mtime=0)
    data = data[:at] + new + data[at + len(new) :] + rest
    assert status(data) in (200, 400, 413)


def status(data: bytes) -> int:
    try:
        return 200 if len(body_of(data, "gzip")) <= LIMIT else 0
    except RequestError as error:
        return error.status
