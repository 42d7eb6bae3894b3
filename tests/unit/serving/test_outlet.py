"""Standard error that nobody reads."""

import io
import json
import os
import sys
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from polyhead.serving import outlet
from polyhead.serving.outlet import LostLines, Outlet, unstalled
from tests.server import eventually


@pytest.fixture
def pipe():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as writer:
        yield reader, writer


def read_lines(reader, last):
    """All lines, up to one that is known."""
    lines = []
    while not lines or last not in lines[-1]:
        lines.append(reader.readline().decode().rstrip("\n"))
    return lines


def page_of(stream):
    registry = CollectorRegistry()
    registry.register(LostLines(stream))
    return generate_latest(registry).decode().splitlines()[-1]


def test_what_is_written_comes_out_in_order(pipe):
    reader, writer = pipe
    with Outlet(writer) as stream:
        for number in range(1000):
            stream.write(f"line {number}\n")
        assert read_lines(reader, "line 999") == [f"line {number}" for number in range(1000)]
        assert page_of(stream) == "polyhead_log_lines_lost_total 0.0"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_reader_that_stands_still_costs_lines_and_no_time(pipe, log_format):
    reader, writer = pipe
    with Outlet(writer, log_format, most=10_000) as stream:
        begin = time.monotonic()
        for number in range(3000):  # 300 kB: the pipe takes 65 of it
            stream.write(f"{number:99d}\n")
        assert time.monotonic() - begin < 5
        came, lost = [], 0
        while len(came) + lost < 3000:
            line = reader.readline().decode().rstrip("\n")
            message = json.loads(line)["message"] if line.startswith("{") else line
            if "missing" in message:
                assert line.startswith("{") == (log_format == "json")
                number, _, told = message.partition(" ")
                assert told == "lines of the log are missing here: nobody read them in time"
                lost += int(number)
            else:
                came.append(int(line))
        assert lost > 2000
        assert page_of(stream) == f"polyhead_log_lines_lost_total {lost}.0"
        assert came == sorted(set(came))
        stream.write("again\n")
        assert read_lines(reader, "again") == ["again"]


def test_the_end_waits_for_a_reader_and_not_for_ever(pipe, monkeypatch):
    reader, writer = pipe
    monkeypatch.setattr(outlet, "CLOSE_SECONDS", 0.3)
    stream = Outlet(writer)
    stream.write("x" * 200_000)
    begin = time.monotonic()
    stream.close()
    assert 0.25 < time.monotonic() - begin < 5
    stream.write("after the end: this may not wait either")
    assert len(reader.read(200_000)) == 200_000
    assert eventually(lambda: stream.write("at last\n") and _has(reader), 5)


def _has(reader):
    os.set_blocking(reader.fileno(), False)
    try:
        return b"at last" in (reader.read(100) or b"")
    finally:
        os.set_blocking(reader.fileno(), True)


def test_a_reader_that_is_gone_harms_nobody():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as writer, Outlet(writer) as stream:
        stream.write("one\n")
        assert eventually(lambda: not stream._thread.is_alive(), 5)
        assert stream.write("two\n") == 4


def test_it_stands_in_for_standard_error_for_a_while(pipe, monkeypatch):
    reader, writer = pipe
    monkeypatch.setattr(sys, "stderr", writer)
    with unstalled("text"):
        assert isinstance(sys.stderr, Outlet)
        assert (sys.stderr.fileno(), sys.stderr.isatty(), sys.stderr.encoding) == (writer.fileno(), False, "utf-8")
        print("inside", file=sys.stderr)
    assert sys.stderr is writer
    assert reader.readline() == b"inside\n"


def test_one_in_memory_stays_as_it_is(monkeypatch):
    memory = io.StringIO()
    monkeypatch.setattr(sys, "stderr", memory)
    with unstalled("text"):
        assert sys.stderr is memory
