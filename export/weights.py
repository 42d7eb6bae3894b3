"""The large tensors of all ONNX graphs of a bundle, each stored once in one file that the graphs share.

A fused graph, its trunk and its heads hold the same weights. ONNX keeps a tensor in a file beside the graph, at an
offset; equal tensors of any graph get one place there.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper

from polyhead.export.errors import ExportError
from polyhead.serving.bundle import Bundle
from polyhead.serving.manifest import Graph

__all__ = ["WEIGHTS", "SharedWeights", "inline", "whole"]

WEIGHTS = "graphs/weights.bin"
LEAST_BYTES = 1024  # smaller tensors stay in the graph: shape arithmetic reads them while it is loaded
ALIGNMENT = 64  # of a cache line


class SharedWeights:
    """Tensors of several graphs, in the order they came."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._places: dict[str, tuple[int, int]] = {}  # by hash: offset, length
        self._end = 0

    @property
    def data(self) -> bytes:
        """The content of the file."""
        return b"".join(self._parts)

    def take(self, model: onnx.ModelProto) -> bool:
        """Move a model's large tensors here; what they say of their place is the name of the file beside the graph.

        Returns:
            Whether there was any.
        """
        taken = False
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.STRING:
                continue
            data = _raw(tensor)
            if len(data) < LEAST_BYTES:
                continue
            offset, length = self._place(data)
            tensor.ClearField("float_data")
            tensor.ClearField("int32_data")
            tensor.ClearField("int64_data")
            tensor.raw_data = b""  # set, or the place is refused
            external_data_helper.set_external_data(tensor, PurePosixPath(WEIGHTS).name, offset, length)
            tensor.ClearField("raw_data")
            taken = True
        return taken

    def _place(self, data: bytes) -> tuple[int, int]:
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._places:
            gap = -self._end % ALIGNMENT
            self._parts += [b"\0" * gap, data]
            self._places[digest] = (self._end + gap, len(data))
            self._end += gap + len(data)
        return self._places[digest]


def _raw(tensor: TensorProto) -> bytes:
    """A tensor's numbers as ONNX writes them to a file: little-endian, rows first."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    array = onnx.numpy_helper.to_array(tensor)
    return np.ascontiguousarray(array).tobytes()


def whole(bundle: Bundle, graph: Graph) -> onnx.ModelProto:
    """An ONNX graph of a bundle with its weights inside.

    Raises:
        ExportError: the graph is of another format.
        BundleError: a file is not the one that the manifest names.
    """
    if graph.format != "onnx":
        raise ExportError(f"graph {graph.id} is {graph.format}, not onnx")
    model = onnx.load_from_string(bundle.read(graph.file))
    if graph.weights is not None:
        inline(model, bundle.read(graph.weights))
    return model


def inline(model: onnx.ModelProto, weights: bytes) -> None:
    """Put tensors that lie in the shared file back into the model."""
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            place = external_data_helper.ExternalDataInfo(tensor)
            start, length = place.offset or 0, place.length or 0
            tensor.raw_data = weights[start : start + length]
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
