"""Ids of requests."""

from __future__ import annotations

import pytest

from polyhead.serving.request import HttpRequest
from polyhead.serving.torchserve.incoming import tags
from polyhead.serving.tracing import LONGEST, client_id, request_id

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-request-id": "abc-1"}, "abc-1"),
        ({"x-request-id": "~!" * (LONGEST // 2)}, "~!" * (LONGEST // 2)),
        ({"x-request-id": "x" * (LONGEST + 1)}, None),
        ({"x-request-id": ""}, None),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": "a\r\nSet-Cookie: b"}, None),
        ({"x-request-id": "abc\n"}, None),
        ({"x-request-id": "é"}, None),
        ({"x-request-id": "abc", "traceparent": VALID}, "abc"),
        ({"x-request-id": "\x7f", "traceparent": VALID}, TRACE),
        ({"traceparent": VALID}, TRACE),
        ({"traceparent": f" {VALID}\t"}, TRACE),
        ({"traceparent": f"01-{TRACE}-{PARENT}-01-more"}, TRACE),
        ({"traceparent": f"00-{TRACE}-{PARENT}-01-more"}, None),
        ({"traceparent": f"01-{TRACE}-{PARENT}-01more"}, None),
        ({"traceparent": f"ff-{TRACE}-{PARENT}-01"}, None),
        ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, None),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"traceparent": VALID.upper()}, None),
        ({"traceparent": VALID[1:]}, None),
        ({"X-Request-Id": "names are in lower case"}, None),
    ],
)
def test_the_clients_id_is_taken_where_it_is_one(headers, expected):
    assert client_id(headers) == expected
    assert request_id(headers, "server's") == (expected or "server's")


def test_only_what_a_client_sent_has_its_id():
    requests = [HttpRequest(b"", "", {"x-request-id": "a"}), None, HttpRequest(b"", "")]
    assert tags(requests) == ["a", None, None]
