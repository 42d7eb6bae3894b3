"""ONNX graphs on ONNX Runtime, through the onnxruntime-gpu package: CPU and CUDA."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import onnx

from polyhead.serving.bundle import Graph
from polyhead.serving.errors import DeviceUnavailable, RuntimeUnavailable
from polyhead.serving.golden import Array

# From 1.29 on it reports process, session and model events to its maker, from the moment it is imported. A server that
# holds other people's models and data reports to nobody; whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["OnnxRuntime", "load"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """An ONNX Runtime session."""

    name = "onnxruntime"

    def __init__(self, session: Any, graph: Graph, device: str) -> None:
        self._session = session
        self._inputs = graph.inputs
        self.device = device

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`."""
        arrays: list[Array] = self._session.run(list(outputs), dict(zip(self._inputs, inputs, strict=True)))
        return arrays


def load(graph: Graph, data: bytes, device: str, threads: int) -> OnnxRuntime:
    """Make a session from a graph's bytes; see `base.load`."""
    _refuse_external_data(graph, data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about graph clean-up are noise
    # Spinning threads take the cores from the other workers and from TorchServe itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    kind, _, index = device.partition(":")
    settings = {} if kind == "cpu" else {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if kind == "cuda":
        onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=[(PROVIDERS[kind], settings)])
    except Exception as error:  # noqa: BLE001 - it raises a private class per status code
        raise RuntimeUnavailable(f"ONNX Runtime refuses {graph.file}: {' '.join(str(error).split())}") from None
    # It falls back to the CPU with a log line; nothing of ours falls back in silence.
    if session.get_providers()[0] != PROVIDERS[kind]:
        raise DeviceUnavailable(
            f"ONNX Runtime cannot use {device} and took {session.get_providers()[0]}: "
            "check that CUDA 13 and cuDNN 9 are installed, or use --device cpu"
        )
    return OnnxRuntime(session, graph, device)


def _refuse_external_data(graph: Graph, data: bytes) -> None:
    """Weights outside the verified bytes could be anything, anywhere."""
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # noqa: BLE001 - protobuf raises a private class
        raise RuntimeUnavailable(f"{graph.file} is no ONNX model ({' '.join(str(error).split())})") from None
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            raise RuntimeUnavailable(f"{graph.file} keeps tensor {tensor.name!r} outside the file: export it again")
