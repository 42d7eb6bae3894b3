"""ONNX: opset 20, a symbolic batch dimension, every weight inside the file."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor

from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.models.spec import TokensHead

__all__ = ["OPSET", "write"]

# 23 is newer, but its attention masks fail in ONNX Runtime.
OPSET = 20
BATCH = "batch"
MAX_BYTES = 2_000_000_000  # of one protobuf


def write(graph: FusedGraph, example: Sequence[Tensor]) -> bytes:
    """Export to ONNX.

    Args:
        graph: the canonical graph.
        example: inputs of two rows or more: an example of one row makes the exporter fix the batch at one.

    Raises:
        ExportError: the exporter refuses the network, or the result is not what `requires` and `ensures` say.
    """
    _requires(example)
    data = _export(graph, tuple(example))
    _ensures(graph, data)
    return data


def _requires(example: Sequence[Tensor]) -> None:
    rows = {len(tensor) for tensor in example}
    if len(rows) != 1 or min(rows) < 2:
        raise ExportError(f"an ONNX export needs an example of two rows or more, got {sorted(rows)}")


def _export(graph: FusedGraph, example: tuple[Tensor, ...]) -> bytes:
    dimensions = _dimensions(graph)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The exporter warns of its own internals; what matters is ensured below.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.input_names),
                output_names=list(graph.output_names),
                dynamic_shapes=(dimensions,),
                external_data=False,
                verbose=False,
            )
        assert program is not None
        buffer = io.BytesIO()
        model = program.model_proto
        if model.ByteSize() > MAX_BYTES:
            raise ExportError(f"the ONNX graph has {model.ByteSize()} bytes, one file holds {MAX_BYTES}")
        onnx.save(model, buffer)
        return buffer.getvalue()
    except ExportError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"the network cannot be exported to ONNX: {lines[0]}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _dimensions(graph: FusedGraph) -> tuple[dict[int, torch.export.Dim], ...]:
    """The symbolic dimensions of each input: the batch, and the free ones by their names."""
    by_name = {BATCH: torch.export.Dim(BATCH, min=1)}
    for array in graph.arrays.values():
        for name in array.free:
            identifier = name.replace("-", "_x2d_")  # the exporter takes no other names
            by_name.setdefault(name, torch.export.Dim(identifier, min=1, max=array.longest))
    return tuple(
        {axis: by_name[d] for axis, d in enumerate((BATCH, *array.shape)) if isinstance(d, str)}
        for array in graph.arrays.values()
    )


def _ensures(graph: FusedGraph, data: bytes) -> None:
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != OPSET:
        raise ExportError(f"the exporter wrote opset {versions.get('')}, wanted {OPSET}")
    for values, names in ((model.graph.input, graph.input_names), (model.graph.output, graph.output_names)):
        got = tuple(value.name for value in values)
        if got != names:
            raise ExportError(f"the ONNX graph has {got}, wanted {names}")
        for value in values:
            free = _free(graph, value.name)
            for axis, name in free.items():
                found = value.type.tensor_type.shape.dim[axis]
                if not found.dim_param:
                    raise ExportError(
                        f"the ONNX graph fixes the {name} of {value.name!r} at {found.dim_value}: "
                        f"the network's forward depends on it (a Python int from .shape, a reshape with a fixed size?)"
                    )


def _free(graph: FusedGraph, name: str) -> dict[int, str]:
    """The axes of an input or output that must be symbolic, and what to call them."""
    if name in graph.arrays:
        shape = graph.arrays[name].shape
        return {0: "batch"} | {axis: d for axis, d in enumerate(shape, start=1) if isinstance(d, str)}
    tokens = isinstance(graph.spec.heads.get(name), TokensHead)
    return {0: "batch", 1: "number of tokens"} if tokens else {0: "batch"}
