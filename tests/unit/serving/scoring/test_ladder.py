"""Rows run together, in parts, alone: whoever raises is found, whoever does not is run once more at most a level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.serving.errors import InputNotFinite
from polyhead.serving.golden import Array
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.ladder import bisect, fault_of, out_of_memory


@given(st.integers(1, 300), st.sets(st.integers(0, 299)))
def test_exactly_the_rows_that_raise_are_found(count: int, bad: set[int]):
    calls: list[int] = []

    def run(rows: Array) -> list[int]:
        calls.append(len(rows))
        if wrong := bad.intersection(rows.tolist()):
            raise ValueError(f"rows {sorted(wrong)}")
        return [row * 10 for row in rows.tolist()]

    pieces, errors = bisect(np.arange(count), run)
    wanted = bad & set(range(count))
    assert set(errors) == wanted
    assert [row for rows, _ in pieces for row in rows.tolist()] == [row for row in range(count) if row not in wanted]
    assert all(found == [row * 10 for row in rows.tolist()] for rows, found in pieces)
    assert len(calls) == 1 or wanted
    assert len(calls) <= 1 + 8 * 3 * max(1, len(wanted))


def test_a_failure_that_is_no_row_s_alone_leaves_every_row_answered():
    def run(rows: Array) -> int:
        if len(rows) == 12:
            raise RuntimeError("only together")
        return len(rows)

    pieces, errors = bisect(np.arange(12), run)
    assert not errors
    assert sum(found for _, found in pieces) == 12


@pytest.mark.parametrize("most", [1, 3, 5, 64])
def test_out_of_memory_goes_down_in_halves(most: int):
    asked: list[int] = []

    def run(rows: Array) -> None:
        asked.append(len(rows))
        if len(rows) > most:
            raise MemoryError

    pieces, errors = bisect(np.arange(64), run)
    assert not errors
    assert asked[: most.bit_length() and 1] == [64]
    sizes = {len(rows) for rows, _ in pieces}
    assert sizes == {{1: 1, 3: 2, 5: 4, 64: 64}[most]}


def test_no_row_is_no_call():
    assert bisect(np.empty(0, np.int64), lambda rows: pytest.fail("called")) == ([], {})


def test_nobody_swallows_an_interrupt():
    def run(_rows: Array) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bisect(np.arange(4), run)


class OutOfMemoryError(RuntimeError):
    """As PyTorch's."""


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA"), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 99"), True),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), True),
        (RuntimeError("indices element out of data bounds"), False),
        (ValueError(""), False),
    ],
)
def test_out_of_memory_is_told_from_other_failures(error: Exception, is_it: bool):
    assert out_of_memory(error) is is_it


def test_a_fault_says_what_http_says_or_the_last_line():
    assert fault_of(4, "decode", InputNotFinite("input 'x': NaN")) == Fault(
        4, "decode", "input_not_finite", "input 'x': NaN"
    )
    raised = RuntimeError("The following operation failed\n  at line 3\n\nindex 99 is out of range\n")
    assert fault_of(1, "forward", raised) == Fault(
        1, "forward", "internal_error", "RuntimeError: index 99 is out of range"
    )
    assert fault_of(1, "forward", MemoryError()) == Fault(1, "forward", "out_of_memory", "MemoryError")
