"""ONNX graphs on ONNX Runtime, through the onnxruntime-gpu package: CPU and CUDA."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import onnx

from polyhead.serving.errors import DeviceUnavailable, RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph

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


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> OnnxRuntime:
    """Make a session; see `base.load`."""
    data = files[graph.file]
    model = _model(graph, data)
    _require_own_weights(graph, model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # It keeps a plan of memory for every shape that it has seen; where lengths are free, there is no end of shapes.
    options.enable_mem_pattern = not _has_free_dimensions(model)
    options.log_severity_level = 3  # errors; warnings about graph clean-up are noise
    # Spinning threads take the cores from the other workers and from TorchServe itself.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    if graph.weights is not None:  # from the verified bytes; without them it would open the file itself
        weights = files[graph.weights]
        name = PurePosixPath(graph.weights).name
        options.add_external_initializers_from_files_in_memory([name], [weights], [len(weights)])
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


def _model(graph: Graph, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # noqa: BLE001 - protobuf raises a private class
        raise RuntimeUnavailable(f"{graph.file} is no ONNX model ({' '.join(str(error).split())})") from None
    return model


def _has_free_dimensions(model: onnx.ModelProto) -> bool:
    """Beside the batch."""
    return any(size.dim_param for value in model.graph.input for size in value.type.tensor_type.shape.dim[1:])


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor anywhere in a model: initializers, sparse ones too, attributes, subgraphs, functions."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in (value,) if hasattr(value, "ListFields") else value:
                if isinstance(part, onnx.TensorProto):
                    yield part
                else:
                    yield from _tensors(part)


def _require_own_weights(graph: Graph, model: onnx.ModelProto) -> None:
    """Weights outside the verified files could be anything, anywhere."""
    for tensor in _tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            place = onnx.external_data_helper.ExternalDataInfo(tensor).location
            if graph.weights is None or place != PurePosixPath(graph.weights).name:
                raise RuntimeUnavailable(
                    f"{graph.file} keeps tensor {tensor.name!r} in {place!r}, which the manifest does not name: "
                    "export it again"
                )
