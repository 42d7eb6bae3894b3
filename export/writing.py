"""Every graph that was asked for, from one captured program, into a bundle's folder."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import onnx as onnx_library
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from polyhead.export import merging, onnx, quantization, torchscript
from polyhead.export.divergence import Stages
from polyhead.export.errors import ExportError
from polyhead.export.folding import folded
from polyhead.export.graphs import PACKED, FusedGraph, PackedGraph
from polyhead.export.parity import AGREEMENT, TOLERANCE
from polyhead.export.precision import HALF, halved
from polyhead.export.program import BATCH, dimensions, exported, symbolic
from polyhead.export.quiet import quiet
from polyhead.export.splitting import Piece, Split
from polyhead.export.weights import WEIGHTS, SharedWeights
from polyhead.models.spec import ImageInput, TokensHead
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Device, Format, Graph, Packed, Precision

__all__ = ["FORMATS", "Wanted", "Written", "write"]

FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {"onnx": "onnx", "torchscript": "ts", "program": "pt2"}
MEANT: dict[Precision, tuple[Device, ...]] = {
    "fp32": ("cpu", "cuda"),
    "fp16": ("cuda",),
    "bf16": ("cuda",),
    "int8": ("cpu",),
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What to write.

    Attributes:
        formats: of the graphs that hold everything.
        precisions: beside fp32, which is always written.
        keep: heads whose own layers stay in fp32 in every precision.
        calibration: rows of every array that int8 graphs of images are calibrated on.
    """

    formats: Sequence[Format] = FORMATS
    precisions: Sequence[Precision] = ()
    keep: Sequence[str] = ()
    calibration: Mapping[str, Array] = field(default_factory=dict)

    @property
    def variants(self) -> list[tuple[Format, Precision]]:
        """Formats and precisions, fp32 first.

        Raises:
            ExportError: int8 without ONNX.
        """
        others = [precision for precision in dict.fromkeys(self.precisions) if precision != "fp32"]
        if "int8" in others and "onnx" not in self.formats:
            raise ExportError("int8 graphs are ONNX graphs: add --format onnx")
        return [(form, "fp32") for form in self.formats] + [
            (form, precision) for precision in others for form in self.formats if precision != "int8" or form == "onnx"
        ]


@dataclass(frozen=True)
class Written:
    """The graphs, and for each precision the programs that they were made through."""

    graphs: tuple[Graph, ...]
    stages: Mapping[Precision, Stages]


def write(
    folder: Path,
    graph: FusedGraph,
    program: fx.GraphModule | None,
    split: Split | None,
    example: Sequence[Tensor],
    wanted: Wanted,
    say: Say,
) -> Written:
    """Write the graphs.

    Args:
        folder: the bundle's, with a folder `graphs` in it.
        graph: the eager network.
        program: captured of it; None where torch.export refuses it, and only TorchScript is wanted.
        split: trunk and heads of the program, to be written as ONNX.
        example: inputs of two rows or more.
        wanted: what to write.
        say: told what is being done.

    Raises:
        ExportError: a format or precision takes this network not.
    """
    writing = _Writing(folder, graph, program, example, wanted, say)
    graphs = writing.run(split)
    stages = {
        precision: Stages(writing.modules["fp32"].module, fused.module, writing.programs.get(precision))
        for precision, fused in writing.modules.items()
    }
    return Written(tuple(graphs), stages)


class _Writing:
    def __init__(
        self,
        folder: Path,
        graph: FusedGraph,
        program: fx.GraphModule | None,
        example: Sequence[Tensor],
        wanted: Wanted,
        say: Say,
    ) -> None:
        self.folder = folder
        self.graph = graph
        self.program = program
        self.example = example
        self.wanted = wanted
        self.say = say
        self.symbols = {} if program is None else _symbols(graph, program)
        self.shared = SharedWeights()
        self.models: dict[str, onnx_library.ModelProto] = {}
        self.programs: dict[Precision, ExportedProgram] = {}
        self.modules: dict[Precision, merging.Fused] = {}

    def run(self, split: Split | None) -> list[Graph]:
        entries = [self._fused(form, precision) for form, precision in self.wanted.variants]
        if split is not None:
            entries += self._split(split)
        for entry in entries:
            if entry.format == "onnx":
                model = self.models[entry.id]
                taken = self.shared.take(model)
                entries[entries.index(entry)] = entry.model_copy(update={"weights": WEIGHTS if taken else None})
                (self.folder / entry.file).write_bytes(model.SerializeToString())
        if self.shared.data:
            (self.folder / WEIGHTS).write_bytes(self.shared.data)
        return entries

    def _fused(self, form: Format, precision: Precision) -> Graph:
        tail = "" if precision == "fp32" else f"-{precision}"
        file = f"graphs/fused{tail}.{SUFFIXES[form]}"
        self.say(f"writing {file}")
        packed: Packed | None
        if self.program is None:
            traced = PackedGraph(self.graph)
            packed = traced.packed(self.example)
            (self.folder / file).write_bytes(torchscript.trace(traced, self.example))
        else:
            packed = self._module(precision).packed
            self._write(form, precision, file, f"fused-{form}{tail}")
        heads = self.graph.spec.head_names
        return Graph(
            id=f"fused-{form}{tail}",
            file=file,
            format=form,
            precision=precision,
            kept=() if precision == "fp32" else tuple(sorted(self.wanted.keep)),
            meant=MEANT[precision],
            inputs=self.graph.input_names,
            outputs=(*heads, PACKED) if packed else heads,
            packed=packed,
            tolerance=TOLERANCE[precision],
            agreement=AGREEMENT[precision],
        )

    def _write(self, form: Format, precision: Precision, file: str, name: str) -> None:
        path = self.folder / file
        match form:
            case "onnx":
                self.models[name] = self._onnx(precision)
            case "torchscript":
                path.write_bytes(torchscript.write(self._module(precision).module))
            case "program":
                buffer = io.BytesIO()
                with quiet():
                    torch.export.save(self._program(precision), buffer)
                path.write_bytes(buffer.getvalue())

    def _module(self, precision: Precision) -> merging.Fused:
        """The fused program in a precision; of int8, the one in fp32 that is quantised."""
        assert self.program is not None
        if precision not in self.modules:
            apart = () if precision == "fp32" else self.wanted.keep
            spec = self.graph.spec
            fused = merging.fuse(self.program, spec.head_names, self.graph.row_heads, PACKED, apart)
            module = fused.module if precision == "fp32" else folded(fused.module)
            if precision in HALF:
                module = halved(module, precision, self.wanted.keep)
            fused = merging.Fused(module, fused.packed, fused.merged)
            self.modules[precision] = fused
        return self.modules[precision]

    def _program(self, precision: Precision) -> ExportedProgram:
        if precision not in self.programs:
            module = self._module(precision).module
            self.programs[precision] = exported(module, self.example, dimensions(self.graph.arrays.values()))
        return self.programs[precision]

    def _onnx(self, precision: Precision) -> onnx_library.ModelProto:
        spec = self.graph.spec
        packed = self._module(precision).packed
        inputs = self.graph.input_names
        outputs = (*spec.head_names, PACKED) if packed else spec.head_names
        model = onnx.write(self._program(precision), inputs, outputs)
        onnx.ensure(model, inputs, outputs, self._free())
        if precision == "int8":
            ends = quantization.ends(model, spec.head_names, PACKED, packed.columns if packed else {})
            keep = quantization.owned(model, ends, self.wanted.keep) if self.wanted.keep else set()
            if any(isinstance(value, ImageInput) for value in spec.inputs.values()):
                self.say("calibrating int8 on rows")
                model = quantization.static(model, self.wanted.calibration, keep)
            else:
                model = quantization.dynamic(model, keep)
        return model

    def _free(self) -> dict[str, dict[int, str]]:
        """Of every input and output, the axes that must be symbolic, and what to call them."""
        free = {
            name: {axis: d for axis, d in enumerate((BATCH, *array.shape)) if isinstance(d, str)}
            for name, array in self.graph.arrays.items()
        }
        for name, head in self.graph.spec.heads.items():
            free[name] = {0: BATCH}
            if isinstance(head, TokensHead):
                free[name][1] = f"{self.graph.spec.text_of(head)}_tokens"
        return {**free, PACKED: {0: BATCH}}

    def _split(self, split: Split) -> list[Graph]:
        """The trunk, fed with the example, then each head, fed with what the trunk says of it."""
        entries = []
        known: dict[str, Tensor] = dict(zip(self.graph.input_names, self.example, strict=True))
        for head, piece in ((None, split.trunk), *split.heads.items()):
            part = "trunk" if head is None else "head"
            name = "trunk" if head is None else f"head-{head}"
            file = f"graphs/{name}.onnx"
            self.say(f"writing {file}")
            entry = Graph(
                id="trunk-onnx" if head is None else f"head-onnx.{head}",
                part=part,
                head=head,
                file=file,
                format="onnx",
                inputs=tuple(piece.inputs),
                outputs=tuple(piece.outputs),
                tolerance=TOLERANCE["fp32"],
            )
            given = [known[source] for source in piece.inputs]
            with torch.no_grad():
                if head is None:  # contiguous, as arrays are: a view's strides would become part of the program
                    found = (tensor.contiguous() for tensor in piece.module(*given))
                    known |= dict(zip(piece.outputs, found, strict=True))
            self.models[entry.id] = self._piece(piece, given)
            entries.append(entry)
        return entries

    def _piece(self, piece: Piece, given: Sequence[Tensor]) -> onnx_library.ModelProto:
        program = exported(piece.module, given, symbolic(piece.inputs.values()))
        inputs, outputs = tuple(piece.inputs), tuple(piece.outputs)
        model = onnx.write(program, inputs, outputs)
        free = {
            name: {
                axis: self.symbols.get(str(size), f"{name}_{axis}")
                for axis, size in enumerate(value.shape)
                if not isinstance(size, int)
            }
            for name, value in {**piece.inputs, **piece.outputs}.items()
        }
        onnx.ensure(model, inputs, outputs, free)
        return model


def _symbols(graph: FusedGraph, program: fx.GraphModule) -> dict[str, str]:
    """What the program calls each free dimension, and what the spec calls it."""
    places = [node for node in program.graph.nodes if node.op == "placeholder"]
    return {
        str(size): dimension
        for array, node in zip(graph.arrays.values(), places, strict=True)
        for dimension, size in zip((BATCH, *array.shape), node.meta["val"].shape, strict=True)
        if isinstance(dimension, str)
    }
