"""Down to the row that fails: rows are run together, and in ever smaller parts where that raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

import numpy as np

from polyhead.serving.errors import RequestError
from polyhead.serving.golden import Array
from polyhead.serving.scoring.faults import Fault, Stage

__all__ = ["Errors", "Pieces", "bisect", "fault_of", "out_of_memory"]

Result = TypeVar("Result")

# Rows that could be run together, with what came of them.
Pieces: TypeAlias = "list[tuple[Array, Result]]"
# By row, why it cannot be run even alone.
Errors: TypeAlias = Mapping[int, Exception]

FAN = 8  # parts of what failed: fewer calls than halves take, and less that is done twice
# ONNX Runtime has one class for all failures of a pass, and says in words that memory ran out.
WORDS = ("failed to allocate memory", "out of memory", "bad_alloc", "bad allocation")


def bisect(rows: Array, run: Callable[[Array], Result]) -> tuple[Pieces[Result], dict[int, Exception]]:
    """Run rows together; where that raises, in parts, down to single rows. Out of memory: in halves.

    Args:
        rows: any numbers, `int64 [rows]`.
        run: what is done with some of them, in their order.

    Returns:
        What could be run, in the order of the rows, and the rows that raise alone.
    """
    if not len(rows):
        return [], {}
    try:
        return [(rows, run(rows))], {}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is for the row to say
        if len(rows) == 1:
            return [], {int(rows[0]): error}
        fan = 2 if out_of_memory(error) else FAN
    pieces: Pieces[Result] = []
    errors: dict[int, Exception] = {}
    for part in np.array_split(rows, min(fan, len(rows))):
        more, wrong = bisect(part, run)
        pieces += more
        errors |= wrong
    return pieces, errors


def out_of_memory(error: Exception) -> bool:
    """Whether a failure says that fewer rows at a time may do."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's, not imported here
        return True
    text = str(error).lower()
    return any(words in text for words in WORDS)


def fault_of(row: int, stage: Stage, error: Exception) -> Fault:
    """What quarantine says of a row's failure: as HTTP would, or the last line of what was raised."""
    if isinstance(error, RequestError):
        return Fault(row, stage, error.type, error.message)
    kind = "out_of_memory" if out_of_memory(error) else "internal_error"
    lines = str(error).strip().splitlines()  # of TorchScript's, the last says what
    return Fault(row, stage, kind, f"{type(error).__name__}: {lines[-1]:.1000}" if lines else type(error).__name__)
