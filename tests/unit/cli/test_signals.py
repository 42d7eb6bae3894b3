"""Which signals stop a server."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from polyhead.cli.serve import Signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_stops_and_the_second_hurries(number: signal.Signals):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signals = Signals()
    signal.raise_signal(number)
    assert (signals.stopping.is_set(), signals.hurry.is_set()) == (True, False)
    signal.raise_signal(number)
    assert signals.hurry.is_set()


def test_a_terminal_that_goes_away_stops_nothing_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = Signals()
    signal.raise_signal(signal.SIGHUP)
    assert not signals.stopping.is_set()
