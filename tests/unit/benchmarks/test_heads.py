"""What merging and packing heads brings: the measurement in small, and its table."""

import pytest

from benchmarks.heads import Exactness, Timing, measure, plot, table


def timing(runtime, heads, batch, packing, merging):
    return Timing(runtime, heads, batch, 1e-3, 9e-4, 5e-4, packing, merging, (merging - 0.1, merging + 0.1))


def test_the_three_ways_give_the_same_numbers_and_are_timed_in_every_runtime():
    timings, exact = measure(4, (1, 2), rounds=2)
    assert [(t.runtime, t.heads, t.batch) for t in timings] == [
        (runtime, 4, batch) for runtime in ("onnxruntime", "torchscript") for batch in (1, 2)
    ]
    for t in timings:
        assert min(t.apart, t.packed, t.merged) > 0
        assert t.spread[0] <= t.merging <= t.spread[1]
    for found in exact:
        assert found.packed
        assert max(found.merged, found.apart) < 1e-5


@pytest.fixture
def timings():
    return [
        timing(runtime, heads, batch, 1.0, float(heads))
        for heads in (1, 64)
        for runtime in ("onnxruntime", "torchscript")
        for batch in (1, 8, 64)
    ]


def test_the_table_has_a_row_for_each_runtime_and_number_of_heads(timings):
    exact = [
        Exactness(runtime, heads, heads == 1, 3e-7, 4e-7)
        for heads in (1, 64)
        for runtime in ("onnxruntime", "torchscript")
    ]
    rows = [line for line in table(timings, exact).splitlines() if line.startswith("| ")][2:]
    assert [row.split("|")[1:4] for row in rows] == [
        [" ONNX Runtime ", " 1 ", " **1.00** (1.00) "],
        [" ONNX Runtime ", " 64 ", " **64.00** (1.00) "],
        [" TorchScript ", " 1 ", " **1.00** (1.00) "],
        [" TorchScript ", " 64 ", " **64.00** (1.00) "],
    ]
    assert [row.split("|")[6].strip() for row in rows] == ["yes", "**no**", "yes", "**no**"]


def test_the_plot_is_a_png(timings):
    assert plot(timings).startswith(b"\x89PNG")
