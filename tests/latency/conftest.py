"""Prints the measured ratios at the end of the run: a bound that is kept says little, the number says more."""

from __future__ import annotations

import pytest

REPORT: list[str] = []


@pytest.fixture(scope="session")
def report() -> list[str]:
    return REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REPORT:
        terminalreporter.section("the batched hot path: handler over bare forward")
        for line in REPORT:
            terminalreporter.write_line(line)
