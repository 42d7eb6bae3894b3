"""From seconds to figures; the seconds are given here."""

from __future__ import annotations

import pytest

from polyhead.export.timing.contenders import Contender
from polyhead.export.timing.results import summarised

EAGER = Contender("eager", "fp32", "cpu")
ONNX = Contender("onnxruntime", "fp32", "cpu", "fused-onnx")
CUDA = Contender("torchscript", "fp32", "cuda:0", "fused-torchscript")


def test_figures_of_a_contender():
    times = {
        (EAGER, 8): [[0.4, 0.4, 0.4], [0.8, 0.8, 0.8], [0.4, 0.4, 0.4]],
        (ONNX, 8): [[0.2, 0.1, 0.3], [0.4, 0.4, 0.4], [0.1, 0.1, 0.9]],
        (CUDA, 8): [[0.01], [0.02], [0.03]],
    }
    eager, onnx, cuda = summarised(times, [EAGER, ONNX, CUDA], [8])
    assert (eager.contender, eager.graph, eager.speed, eager.reference) == ("eager", None, 1.0, "eager")
    assert (onnx.contender, onnx.graph, onnx.device, onnx.batch) == ("onnxruntime fp32", "fused-onnx", "cpu", 8)
    assert (onnx.median_seconds, onnx.low_seconds, onnx.high_seconds) == (0.2, 0.1, 0.4)
    assert onnx.rows_per_second == 40
    assert onnx.speed == 2  # of 2, 2 and 4: round by round, though the second was slow for both
    assert onnx.passes == 9
    assert onnx.p95_seconds == pytest.approx(0.4)  # of 0.29, 0.4 and 0.82
    # Eager was not timed on the GPU: its first contender is the reference there.
    assert (cuda.speed, cuda.reference, cuda.rows_per_second) == (1.0, "torchscript fp32", 400)


def test_every_batch_has_its_own_figures():
    times = {(ONNX, 1): [[0.1]], (ONNX, 64): [[0.4]]}
    one, many = summarised(times, [ONNX], [1, 64])
    assert (one.batch, many.batch) == (1, 64)
    assert (one.rows_per_second, many.rows_per_second) == (pytest.approx(10), pytest.approx(160))
