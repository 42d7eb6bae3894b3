"""The batched hot path against the bare forward pass of the same batch, in the same run.

Bounds are on ratios, as medians of rounds in which the two run in turn: a slow or busy machine slows both.
"""

from __future__ import annotations

import pytest

from benchmarks.hot_path import BATCHES, Timing, measure, mlp, resnet

pytestmark = pytest.mark.alone

# The aim is 1.25 at a batch of 32 for a trunk of ResNet-18's size; small batches carry the fixed cost of a call alone.
RESNET_BOUNDS = {1: 1.5, 8: 1.3, 32: 1.25, 64: 1.25}
# Around a forward pass of a few microseconds a row everything shows: 3 to 5 were measured, at 6 us a request.
# That it is one forward pass per batch, and none per row or head, `measure` asserts at every call.
MLP_BOUND = 9.0


def lines(title: str, timings: list[Timing]) -> list[str]:
    return [
        f"{title}, batch {t.batch}: {t.ratio:.2f} ({t.low:.2f} - {t.high:.2f}), bare {t.bare * 1e3:.3f} ms"
        for t in timings
    ]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
def test_around_a_resnet_18_the_handler_costs_little(tmp_path, report, runtime):
    timings = measure(resnet(112), tmp_path, rounds=5, runtime=runtime)
    report += lines(f"ResNet-18, JPEG 112 x 112, {runtime}", timings)
    assert [t.batch for t in timings] == list(BATCHES)
    for timing in timings:
        assert timing.ratio <= RESNET_BOUNDS[timing.batch], timing


def test_around_a_tiny_mlp_the_handlers_cost_stays_in_bounds(tmp_path, report):
    timings = measure(mlp(), tmp_path, rounds=9)
    report += lines("MLP 768-256-256, binary, onnxruntime", timings)
    for timing in timings:
        assert timing.ratio <= MLP_BOUND, timing
