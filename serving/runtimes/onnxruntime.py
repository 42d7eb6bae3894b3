"""ONNX graphs on ONNX Runtime, through the onnxruntime-gpu package: CPU and CUDA."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import onnx

from polyhead.serving.errors import DeviceUnavailable, RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.base import fetched

# From 1.29 on it reports process, session and model events to its maker, from the moment it is imported. A server that
# holds other people's models and data reports to nobody; whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

if TYPE_CHECKING:
    from polyhead.serving.runtimes.sessiongraphs import CudaOnnxRuntime

__all__ = ["OnnxRuntime", "load"]

logger = logging.getLogger(__name__)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """An ONNX Runtime session on the CPU; on CUDA see `sessiongraphs`."""

    name = "onnxruntime"
    mode, why = "eager", ""

    def __init__(self, session: Any, graph: Graph, device: str) -> None:
        self._session = session
        self._inputs = graph.inputs
        self.device = device

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`.

        Without an IO binding: one row of a small MLP takes 25.3 us so, 33.2 with a binding made for each pass, and 20.9
        with one over fixed memory, into which the rows would first have to be copied, for as much as it saves.
        """
        arrays: list[Array] = self._session.run(list(outputs), dict(zip(self._inputs, inputs, strict=True)))
        return arrays


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> OnnxRuntime | CudaOnnxRuntime:
    """Make a session; see `base.load`."""
    model = _model(graph, files[graph.file])
    _require_own_weights(graph, model)
    if device == "cpu":
        return OnnxRuntime(_session(graph, files, model, device, threads), graph, device)
    onnxruntime.preload_dlls()
    from polyhead.serving.runtimes.sessiongraphs import CudaOnnxRuntime, SessionGraphs, provider_settings

    recorder = SessionGraphs(device, graph.inputs, fetched(graph))
    try:
        session = _session(graph, files, model, device, threads, provider_settings(recorder))
    except RuntimeUnavailable as error:  # such as a graph some of whose operations only the CPU has
        session = _session(graph, files, model, device, threads)
        logger.warning("%s runs eagerly on %s: %s", graph.file, device, error)
        return CudaOnnxRuntime(session, graph, device, None, str(error))
    return CudaOnnxRuntime(session, graph, device, recorder)


def _options(graph: Graph, files: Mapping[str, bytes], model: onnx.ModelProto, threads: int) -> Any:
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
    return options


def _session(
    graph: Graph,
    files: Mapping[str, bytes],
    model: onnx.ModelProto,
    device: str,
    threads: int,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """A session that runs where it was told to.

    Args:
        settings: of the CUDA provider, besides those that every session there has.

    Raises:
        RuntimeUnavailable: the graph is refused.
        DeviceUnavailable: the device is.
    """
    kind, _, index = device.partition(":")
    provider, options = PROVIDERS[kind], _options(graph, files, model, threads)
    cuda = {"device_id": index, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", **settings}
    try:
        session = onnxruntime.InferenceSession(
            files[graph.file],
            options,
            providers=[(provider, {} if kind == "cpu" else cuda)],
            enable_fallback=0,  # else a pass that fails on the GPU would move the session to the CPU
        )
    except Exception as error:  # noqa: BLE001 - it raises a private class per status code
        raise RuntimeUnavailable(f"ONNX Runtime refuses {graph.file}: {' '.join(str(error).split())}") from None
    # It falls back to the CPU with a log line; nothing of ours falls back in silence.
    if session.get_providers()[0] != provider:
        raise DeviceUnavailable(
            f"ONNX Runtime cannot use {device} and took {session.get_providers()[0]}: "
            "check that CUDA 13 and cuDNN 9 are installed, or use --device cpu"
        )
    return session


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
