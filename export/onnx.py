"""ONNX: opset 20, every free dimension symbolic under its own name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx
import torch
from torch.export import ExportedProgram

from polyhead.export.errors import ExportError
from polyhead.export.quiet import quiet
from polyhead.export.recurrence import whole_sequences

__all__ = ["OPSET", "ensure", "require_valid", "write"]

# 23 is newer, but its attention masks fail in ONNX Runtime.
OPSET = 20
# What inputs and outputs are called while the exporter names everything else.
PRIVATE = "polyhead_private_"


def write(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """A program as an ONNX model, its weights inside.

    Args:
        program: exported with every free dimension symbolic.
        inputs, outputs: names by position.

    Raises:
        ExportError: the exporter knows no form for one of the operations.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quiet(), whole_sequences():
            written = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[f"{PRIVATE}{name}" for name in inputs],
                output_names=[f"{PRIVATE}{name}" for name in outputs],
                external_data=False,
                verbose=False,
            )
        assert written is not None
        return _named(_anonymous(written.model_proto), (*inputs, *outputs))
    except Exception as error:
        raise ExportError(f"the network cannot be exported to ONNX: {_reason(error)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Of the exporter's pages, the line that says what is wrong: the first of its summary, without the class."""
    text = str(error).strip() or type(error).__name__
    lines = [line for line in text.partition("## Exception summary")[2].splitlines() if line.strip()]
    return lines[0].partition(">: ")[2] or lines[0] if lines else text.splitlines()[0]


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes on each operation: they hold lines and paths of the machine that it ran on."""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:]
    return model


def _named(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Inputs and outputs under their own names, also where an operation has that name (a head called `log`)."""
    graph = model.graph
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    renamed = {name: f"{name}_value" for name in names if name in taken}
    while set(renamed.values()) & (taken | set(names)):
        renamed = {name: f"{other}_" for name, other in renamed.items()}
    renamed |= {f"{PRIVATE}{name}": name for name in names}
    for node in graph.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = renamed.get(name, name)
    for part in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.name = renamed.get(part.name, part.name)
    return model


def ensure(
    model: onnx.ModelProto,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
) -> None:
    """Hold a model against what was wanted of it, and give its free dimensions their names.

    Args:
        model: as `write` returned it; its inputs' dimensions are renamed.
        inputs, outputs: names by position.
        free: by input or output, the axes that must be symbolic, and what to call them.

    Raises:
        ExportError: another opset, other names, or a free dimension that became a number.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("") != OPSET:
        raise ExportError(f"the exporter wrote opset {versions.get('')}, wanted {OPSET}")
    for values, names in ((model.graph.input, inputs), (model.graph.output, outputs)):
        got = tuple(value.name for value in values)
        if got != tuple(names):
            raise ExportError(f"the ONNX graph has {got}, wanted {tuple(names)}")
    renamed: dict[str, str] = {}
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in free.get(value.name, {}).items():
            found = value.type.tensor_type.shape.dim[axis]
            if not found.dim_param:
                raise ExportError(
                    f"the ONNX graph fixes the {name} of {value.name!r} at {found.dim_value}: "
                    f"the network's forward depends on it (a Python int from .shape, a reshape with a fixed size?)"
                )
            renamed.setdefault(found.dim_param, name)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for found in value.type.tensor_type.shape.dim:
            if found.dim_param in renamed:
                found.dim_param = renamed[found.dim_param]
    require_valid(model)


def require_valid(model: onnx.ModelProto) -> None:
    """Hold a model against ONNX's own rules, shapes and types inferred.

    Raises:
        ExportError: naming the operation that breaks them.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:  # the last: 2 GiB
        words = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(f"the ONNX graph is not valid at opset {OPSET}: {words:.400}") from error
