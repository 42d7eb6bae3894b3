"""Runs of ONNX Runtime bound to fixed memory, on the CPU: what CUDA captures is called again there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from polyhead.serving.engine import Engine
from polyhead.serving.runtimes import base
from polyhead.serving.runtimes.buckets import Buckets
from polyhead.serving.runtimes.recording import Recording
from polyhead.serving.runtimes.sessiongraphs import BoundRun


class Bound:
    """Records runs of a session on the CPU."""

    device, pinned, limit, room = torch.device("cpu"), False, 1 << 30, True

    def __init__(self, session: onnxruntime.InferenceSession, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.session, self.inputs, self.outputs = session, inputs, outputs

    def running(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def record(self, inputs: Sequence[Tensor]) -> Recording:
        return BoundRun(self.session, dict(zip(self.inputs, inputs, strict=True)), self.outputs, "1")

    def wait(self) -> None:
        pass

    def is_pinned(self, tensor: Tensor) -> bool:
        return False


@pytest.mark.parametrize("model", ["mlp", "field"])
def test_a_session_answers_over_bound_memory_as_it_does_without(request, model):
    """Of the second model, one head has a value per pixel, and is an output of its own."""
    bundle = request.getfixturevalue(model).bundle
    graph = bundle.manifest.graph("fused-onnx")
    runtime = base.load("onnxruntime", graph, bundle.graph_files(graph), "cpu", 1)
    session = onnxruntime.InferenceSession(str(bundle.folder / graph.file), providers=["CPUExecutionProvider"])
    names = base.fetched(graph)
    buckets = Buckets(runtime.run, Bound(session, graph.inputs, names), {name: i for i, name in enumerate(names)})
    golden = [bundle.golden().inputs[name] for name in graph.inputs]
    for shift in range(6):
        for count in (1, 3, 7):
            rows = [np.ascontiguousarray(array[(np.arange(count) + shift) % len(array)]) for array in golden]
            wanted = names if shift % 2 else names[-1:]
            for found, expected in zip(buckets.run(rows, wanted), runtime.run(rows, wanted), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (buckets.mode, buckets.recorded, buckets.replays) == ("cuda graphs", 3, 12)


def test_an_engine_says_that_it_runs_eagerly_on_the_cpu(mlp):
    assert base.mode(Engine.load(mlp.bundle, "onnxruntime", "cpu").runtime) == "eager"
