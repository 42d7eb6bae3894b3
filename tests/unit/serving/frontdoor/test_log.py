"""Which lines of nginx become lines of the log."""

import pytest

from polyhead.serving.frontdoor.log import LogLines

HEAD = "2026/11/21 22:00:00 [error] 12#12: *5 "


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (HEAD + "upstream timed out, client: 127.0.0.1", ["front door: upstream timed out, client: 127.0.0.1"]),
        (HEAD + "readv() failed (104: Connection reset by peer) while reading upstream, client: 127.0.0.1", []),
        (
            HEAD + "recv() failed (104: Connection reset by peer) while reading response header from upstream",
            ["front door: recv() failed (104: Connection reset by peer) while reading response header from upstream"],
        ),
    ],
)
def test_what_torchserve_does_after_each_refusal_is_not_told(line, told):
    said = []
    LogLines(said.append, "text").error(line)
    assert said == told


def test_it_takes_no_room_from_lines_that_tell_something():
    said = []
    lines = LogLines(said.append, "text")
    for _ in range(100):
        lines.error(HEAD + "readv() failed (104: Connection reset by peer) while reading upstream, client: 127.0.0.1")
    lines.error(HEAD + "upstream timed out")
    assert said == ["front door: upstream timed out"]
