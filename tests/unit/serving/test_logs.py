"""The log in JSON: one object a line, tracebacks inside, and Java's wrapping undone."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys

import pytest

from polyhead.serving.logs import JSON_PATTERN, JsonFormatter, Lines, json_line


def logged(*arguments: object, model: str | None = "m/1", level: int = logging.WARNING, **options: object) -> str:
    """What one call of a logger prints."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(model))
    logger = logging.Logger("polyhead.serving.x")
    logger.addHandler(handler)
    logger.log(level, *arguments, **options)
    return stream.getvalue()


def test_a_record_is_an_object_with_time_level_logger_model_and_message():
    content = json.loads(logged("%d rows", 3, extra={"request": "abc"}))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", content.pop("time"))
    assert content == {
        **{"level": "warning", "logger": "polyhead.serving.x", "model": "m/1", "request": "abc"},
        "message": "3 rows",
    }


def test_a_traceback_is_on_the_same_line():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        text = logged("failed", exc_info=True)
    assert text.count("\n") == 1
    content = json.loads(text)
    assert content["message"] == "failed"
    assert content["exception"].startswith("Traceback (most recent call last):\n")
    assert content["exception"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize("message", ["half \ud800 a character", 'quotes " and \\', "two\nlines", "Zoë 👩‍👩‍👧"])
def test_any_message_is_one_line_of_json(message):
    text = logged(message)
    assert text.count("\n") == 1
    content = json.loads(text)["message"]
    assert content == message or "ud800" in content


def unwrapped(line: str) -> dict[str, object]:
    lines: list[str] = []
    Lines(lines.append)(line)
    (text,) = lines
    assert "\n" not in text
    return json.loads(text)


def log4j(message: str, level: str = "INFO", exception: str = "") -> str:
    """A line as log4j writes it with our pattern."""
    values = {"%p": level, "%c{1}": "MODEL_LOG", "%n": ""}
    text = re.sub(r"%d\{.*\}\{UTC\}", "2026-01-01T00:00:00.000Z", JSON_PATTERN)
    for key, value in values.items():
        text = text.replace(key, value)
    text = text.replace("%enc{%m}{JSON}", json.dumps(message)[1:-1])
    return text.replace("%enc{%xEx}{JSON}", json.dumps(exception)[1:-1])


def test_what_a_worker_logged_comes_out_as_it_went_in():
    line = logged("failed", extra={"status": 500}).strip()
    assert unwrapped(log4j(line)) == json.loads(line)


def test_a_line_of_javas_keeps_its_level_and_stack():
    found = unwrapped(log4j("it broke", "WARN", "java.io.IOException\n\tat x"))
    assert found == {
        **{"time": "2026-01-01T00:00:00.000Z", "level": "warning", "logger": "MODEL_LOG"},
        **{"message": "it broke", "exception": "java.io.IOException\n\tat x"},
    }
    assert "exception" not in unwrapped(log4j("fine"))


@pytest.mark.parametrize("line", ["WARNING: java says", "{", '{"a": 1}', "[1]", "", '{"message": 1'])
def test_any_other_line_becomes_a_message(line):
    found = unwrapped(line)
    assert (found["message"], found["logger"], found["level"]) == (line, "torchserve", "info")


def test_a_printed_object_that_is_no_record_stays_a_message():
    assert unwrapped(log4j('{"time": 3}'))["message"] == '{"time": 3}'


def test_a_line_of_the_launchers_own():
    content = json.loads(json_line("ready", model="m/1"))
    assert (content["level"], content["logger"], content["model"], content["message"]) == (
        *("info", "polyhead", "m/1", "ready"),
    )


CRASH = """
import logging
from polyhead.serving.logs import configure
configure("json", "m/1")
logging.getLogger("a").warning("first")
raise RuntimeError("the end")
"""


def test_an_exception_that_ends_the_process_is_one_line_too():
    result = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False)
    first, last = map(json.loads, result.stderr.splitlines())
    assert (first["message"], first["model"]) == ("first", "m/1")
    assert (last["level"], last["message"]) == ("critical", "the process ends: the end")
    assert last["exception"].endswith("RuntimeError: the end")
