"""What nginx takes for a request: octets that are sent as they are. Behind the door nothing odd may ever arrive."""

from __future__ import annotations

import json

import pytest

from tests.unit.serving.frontdoor.upstream import raw

POST = b"POST /predictions/digits HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /v2/models HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = b"Content-Length: 2\r\n\r\n{}"

REFUSED = {
    "length and chunks": (400, POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET),
    "chunks and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + GET),
    "two lengths": (400, POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x" + GET),
    "a length twice": (400, POST + b"Content-Length: 2\r\n" + LENGTH + GET),
    "a list of lengths": (400, POST + b"Content-Length: 2, 2\r\n\r\n{}" + GET),
    "a length with a sign": (400, POST + b"Content-Length: +2\r\n\r\n{}"),
    "a negative length": (400, POST + b"Content-Length: -1\r\n\r\n{}"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x2\r\n\r\n{}"),
    "a length beyond 64 bits": (400, POST + b"Content-Length: 99999999999999999999\r\n\r\n{}"),
    "a blank before the colon": (400, POST + b"Content-Length : 2\r\n\r\n{}"),
    "an unknown coding": (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "two codings": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked and a tab": (501, POST + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n"),
    "chunked and a vertical tab": (501, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked and identity": (400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    "chunks in HTTP/1.0": (400, CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n"),
    "a line feed in an extension": (400, CHUNKED + b"2;a\nXX\r\n{}\r\n0\r\n\r\n" + GET),
    "a chunk of 0x2": (400, CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a chunk of -2": (400, CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk beyond 64 bits": (400, CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": (400, CHUNKED + b"2\r\n{}XX0\r\n\r\n" + GET),
    "a folded header": (400, POST + b"X-A: b\r\n c\r\n" + LENGTH),
    "a folded length": (400, POST + b"Content-Length:\r\n 2\r\n\r\n{}"),
    "a carriage return in a header": (400, POST + b"X-A: b\rX-B: c\r\n" + LENGTH),
    "a NUL in a header": (400, POST + b"X-A: b\0c\r\n" + LENGTH),
    "a NUL in the path": (400, b"POST /predictions/digits\0 HTTP/1.1\r\nHost: x\r\n" + LENGTH),
    "an encoded NUL": (400, b"POST /predictions/digits%00 HTTP/1.1\r\nHost: x\r\n" + LENGTH),
    "a blank in a name": (400, POST + b"X A: b\r\n" + LENGTH),
    "a blank before a name": (400, POST + b" X-A: b\r\n" + LENGTH),
    "no host": (400, b"POST /predictions/digits HTTP/1.1\r\n" + LENGTH),
    "two hosts": (400, POST + b"Host: y\r\n" + LENGTH),
    "a path as host": (400, b"POST /predictions/digits HTTP/1.1\r\nHost: x/../y\r\n" + LENGTH),
    "an authority as path": (400, b"POST evil:80 HTTP/1.1\r\nHost: x\r\n" + LENGTH),
    "a star as path": (400, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
    "CONNECT": (400, b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "TRACE": (405, b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a path above the root": (400, b"GET /console/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a method in small letters": (400, b"post /predictions/digits HTTP/1.1\r\nHost: x\r\n" + LENGTH),
    "a method that is none": (405, b"FOO /v2/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    "HTTP/2.0": (505, b"GET /v2/models HTTP/2.0\r\nHost: x\r\n\r\n"),
    "HTTP/1.2": (505, b"GET /v2/models HTTP/1.2\r\nHost: x\r\nConnection: close\r\n\r\n"),
    "HTTP/2 at once": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS to a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64),
    "a header of 40 000 octets": (431, b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 40_000 + b"\r\n\r\n"),
    "20 000 headers": (431, b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"X-A: a\r\n" * 20_000 + b"\r\n"),
    "a path of 40 000 octets": (414, b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_http_gets_one_answer_in_our_words_and_goes_nowhere(opened, case):
    one = opened()
    status, octets = REFUSED[case]
    answer = raw(one.door.port, octets, 1.0)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status), answer[:300]
    assert answer.count(b"HTTP/1.1 ") == 1 + answer.count(b"not HTTP/1.1 as") + answer.count(b"and HTTP/1.1 are")
    assert set(json.loads(body)) == {"error", "type", "loc"}
    assert b"Content-Type: application/json" in head
    assert one.torchserve.seen == one.side.seen == []
    assert one.http.get("/v2").status_code == 200  # and it serves on


def test_a_request_of_http_0_9_is_refused(opened):
    one = opened()
    assert json.loads(raw(one.door.port, b"GET /v2/models\r\n"))["type"] == "http_version"
    assert one.side.seen == []


@pytest.mark.parametrize(
    "octets",
    [
        CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2;" + b"a" * 50_000 + b"\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"0" * 3000 + b"2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"2\n{}\n0\n\n",
        CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\nX-Trailer: a\r\nContent-Length: 99\r\n\r\n",
        POST.replace(b"\r\n", b"\n") + LENGTH.replace(b"\r\n", b"\n"),
        b"POST http://evil/predictions/digits HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + LENGTH,
        POST.replace(b"close", b"close, Content-Type, Content-Length") + LENGTH,
        POST + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + LENGTH,
    ],
)
def test_what_nginx_takes_arrives_as_one_plain_request(opened, octets):
    one = opened()
    answer = raw(one.door.port, octets)
    assert answer.startswith(b"HTTP/1.1 200")
    (seen,) = one.torchserve.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/predictions/digits", b"{}")
    assert seen.headers == {"host": "localhost", "content-length": "2", "x-request-id": seen.headers["x-request-id"]}
    assert one.side.seen == []


def test_a_request_inside_a_body_stays_a_body(opened):
    one = opened()
    smuggled = b"POST /control/add HTTP/1.1\r\nHost: x\r\n\r\n"
    octets = POST.replace(b"Connection: close\r\n", b"") + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled
    assert raw(one.door.port, octets + GET, 0.5).count(b"HTTP/1.1 200") == 2
    assert [(seen.path, seen.body) for seen in one.torchserve.seen] == [("/predictions/digits", smuggled)]
    assert [seen.path for seen in one.side.seen] == ["/v2/models"]
    # nor does a body of a request that has none to have
    assert (
        raw(one.door.port, GET[:-2] + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled, 0.5).count(b"200 OK")
        == 1
    )
    assert [(seen.path, seen.body) for seen in one.side.seen[1:]] == [("/v2/models", b"")]


PATHS = r"""
/control/add /%63ontrol/add //control/add /./control/add /v2/../control/add /console/../control/add
/console/a/../../control/add /console/%2e%2e/control/add /console/..%2fcontrol/add /console/.%2e/control
/control;x /CONTROL/add /\control /%2fcontrol /predictions/../control/add /predictions/digits/../../control/add
/predictions/digits%2f..%2f..%2fcontrol /predictions/%2e%2e/models /predictions/..;/models
/predictions/digits/1.0/extra /predictions/digits/ /predictions/digits/1.0/
/predictions/digits/1.0/../../../models /predictions/digits%20 /models /models?url=http://evil /models/digits
/models/digits/1.0/set-default /workflows /wfpredict/x /explanations/digits /explanations/digits/1.0
/invocations /invocations?model_name=digits /digits/predict /ping /api-description /metrics/x
/v1/models/digits:explain /v1/models/digits /v2/models/digits/infer/ /v2/models/digits/explain
/v2/repository/index /_door/404 /_door/torchserve /_door/chunked /_door/chunked/read /nginx_status /index.html
/v2/health /v2/health/READY /Metrics /v2/models/digits/versions/1.0/infer/x /v2/models/..%2f /etc/passwd
/docs/.. /%5fdoor/chunked /_door/%63hunked/read
"""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_other_path_and_every_way_to_write_it_is_not_found(opened, method):
    one = opened()
    for path in PATHS.split():
        octets = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        answer = raw(one.door.port, octets)
        assert answer.startswith(b"HTTP/1.1 404"), (path, answer[:200])
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "not_found"
        inside = raw(one.door.probe_port, octets)  # nor through the listener of the loopback
        assert inside.startswith(b"HTTP/1.1 404"), (path, inside[:200])
    assert one.torchserve.seen == one.side.seen == []
