"""The same bundle on a CUDA device. Everything here has its twin on the CPU, which runs everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
def test_the_golden_samples_are_reproduced_on_the_gpu(digits_bundle, runtime):
    engine = Engine.load(Bundle.open(digits_bundle), runtime, "cuda")
    assert engine.runtime.device == "cuda:0"
    assert max(engine.replay_golden().values()) < 1e-2


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
def test_the_gpu_answers_as_the_cpu_does(digits_bundle, runtime):
    bundle = Bundle.open(digits_bundle)
    pixels = {"image": np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)}
    gpu, cpu = (Engine.load(bundle, runtime, device).run(pixels) for device in ("cuda", "cpu"))
    for head, expected in cpu.items():
        np.testing.assert_allclose(gpu[head], expected, rtol=1e-3, atol=1e-3, err_msg=head)
