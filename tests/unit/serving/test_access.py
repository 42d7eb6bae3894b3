"""One line per request: id, status, rows, heads, and no content."""

from __future__ import annotations

import json
import logging

import pytest

from polyhead.serving.access import AccessLog
from polyhead.serving.errors import MalformedBody
from polyhead.serving.logs import JsonFormatter
from polyhead.serving.request import HttpRequest, HttpResponse, Query


def test_each_request_is_a_line_and_a_program_can_read_it(caplog: pytest.LogCaptureFixture):
    secret = HttpRequest(b"secret", "text/plain", {"x-request-id": "abc", "authorization": "secret"})
    requests = [secret, HttpRequest(b"secret", "text/plain"), MalformedBody("no")]
    outcomes = [Query(3, {}, ("color", "level")), MalformedBody("no"), MalformedBody("no")]
    responses = [HttpResponse(200, "OK", b"secret"), *[HttpResponse(400, "Bad Request", b"secret")] * 2]
    assert logging.getLogger().level == logging.WARNING, "as a worker's is"
    AccessLog()(requests, outcomes, responses, 0.00251)
    assert [record.getMessage() for record in caplog.records] == [
        "request abc: 200, 3 rows, heads color,level, 2.5 ms",
        "request -: 400, 0 rows, heads -, 2.5 ms",
        "request -: 400, 0 rows, heads -, 2.5 ms",
    ]
    content = json.loads(JsonFormatter("m/1").format(caplog.records[0]))
    found = {key: content[key] for key in ("request", "status", "rows", "heads", "milliseconds")}
    assert found == {"request": "abc", "status": 200, "rows": 3, "heads": ["color", "level"], "milliseconds": 2.51}
    assert "secret" not in caplog.text
