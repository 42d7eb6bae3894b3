"""How an input is cut into units: by its files and settings alone, never by the machine or by who is free."""

from __future__ import annotations

from polyhead.serving.scoring.sources.base import Source
from polyhead.serving.scoring.units import Unit

__all__ = ["plan"]

LARGEST = 100_000  # rows of a unit, about, where nothing was asked for
SMALLEST = 1_000
UNITS = 16  # of an input that is smaller: enough that several workers end at about the same time


def plan(source: Source, unit_rows: int) -> list[Unit]:
    """The units of an input.

    Args:
        source: of the driver.
        unit_rows: of each, about; 0: as suits the input.
    """
    if unit_rows:
        return source.plan(unit_rows)
    units = source.plan(LARGEST)
    suited = max(SMALLEST, -(-sum(unit.rows for unit in units) // UNITS))
    return units if suited >= LARGEST or not units else source.plan(suited)
