"""Where a refused graph begins to differ: planted at a known operation, named in words."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from onnx import ModelProto, helper, load_from_string
from torch import nn

from polyhead.export import divergence, writing
from polyhead.export.graphs import FusedGraph
from polyhead.export.program import capture, dimensions, exported
from polyhead.export.quiet import quiet
from polyhead.export.weights import inline
from polyhead.export.writing import Wanted, Written
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from tests.unit.export.breakable import Numbers, bypass, reweigh, source, weight


@dataclass(frozen=True)
class Case:
    """Written graphs, and what they were made through."""

    graph: FusedGraph
    folder: Path
    written: Written
    samples: list[dict[str, Array]]

    def entry(self, name: str) -> Graph:
        return next(entry for entry in self.written.graphs if entry.id == name)

    def files(self, name: str) -> dict[str, bytes]:
        return {file: (self.folder / file).read_bytes() for file in self.entry(name).files}

    def locate(self, name: str, files: dict[str, bytes] | None = None, graph: FusedGraph | None = None) -> str:
        entry = self.entry(name)
        stages = self.written.stages[entry.precision]
        return divergence.locate(entry, files or self.files(name), stages, graph or self.graph, self.samples)

    def planted(self, plant: Callable[[ModelProto], None]) -> str:
        """What is found where the ONNX file is broken after it was written."""
        files = self.files("fused-onnx")
        entry = self.entry("fused-onnx")
        model = load_from_string(files[entry.file])
        if entry.weights is not None:
            inline(model, files[entry.weights])
        plant(model)
        return self.locate("fused-onnx", {**files, entry.file: model.SerializeToString()})


def made(network: nn.Module, folder: Path, wanted: Wanted) -> Case:
    (folder / "graphs").mkdir()
    graph = FusedGraph(network, Numbers.spec)
    samples = source(network, Numbers.spec).batches()
    example = [torch.from_numpy(array[:2].copy()) for array in samples[0].values()]
    program = capture(graph, example)
    return Case(graph, folder, writing.write(folder, graph, program, None, example, wanted, lambda _: None), samples)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Case:
    return made(Numbers(), tmp_path_factory.mktemp("plain"), Wanted())


@pytest.mark.parametrize("name", ["fused-onnx", "fused-torchscript", "fused-program"])
def test_where_every_operation_agrees_nothing_is_said(plain, name):
    assert plain.locate(name) == ""


# --- in the file ----------------------------------------------------------------------------------------------------


def test_an_activation_that_is_lost_is_named(plain):
    found = plain.planted(lambda model: bypass(model, "Relu"))
    assert found.startswith("; the first operation that diverges, at batch 1: 'relu' (relu.default), in ")
    assert "in graphs/fused.onnx: error " in found


def test_the_first_of_the_operations_that_differ_is_named(plain):
    """All that follow a wrong layer are wrong as well."""

    def plant(model: ModelProto) -> None:
        reweigh(model, "trunk.weight", weight(model, "trunk.weight") + 0.1)

    assert "'linear' (linear.default), in graphs/fused.onnx: error " in plain.planted(plant)


def test_an_operation_behind_the_trunk_is_named(plain):
    def plant(model: ModelProto) -> None:
        reweigh(model, "merged_0_weight", weight(model, "merged_0_weight") + 0.1)

    found = plain.planted(plant)
    assert "'linear_1' (linear.default), in graphs/fused.onnx: error " in found


def test_what_no_row_shows_before_the_largest_batch_is_named_there(plain):
    """An operation that is right for small numbers alone."""
    rows = {name: array.copy() for name, array in plain.samples[0].items()}
    rows["x"][40] = 50

    def plant(model: ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Clip"
                node.input.extend(["planted_zero", "planted_bound"])
        model.graph.initializer.extend(
            helper.make_tensor(name, 1, [], [value]) for name, value in (("planted_zero", 0.0), ("planted_bound", 20.0))
        )

    found = Case(plain.graph, plain.folder, plain.written, [rows]).planted(plant)
    assert found.startswith("; the first operation that diverges, at batch 64: 'relu' (relu.default), in graphs/")


def test_an_operation_of_another_program_is_named(plain):
    """A .pt2 whose trunk is of another checkpoint."""
    other = copy.deepcopy(plain.graph.caller.network)
    with torch.no_grad():
        other.trunk.bias += 0.1
    graph = FusedGraph(other, Numbers.spec)
    example = [torch.from_numpy(array[:2].copy()) for array in plain.samples[0].values()]
    program = exported(capture(graph, example), example, dimensions(graph.arrays.values()))
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer)
    entry = plain.entry("fused-program")
    found = plain.locate("fused-program", {entry.file: buffer.getvalue()})
    assert "'linear' (linear.default), in graphs/fused.pt2: error 0.1 where values reach " in found


# --- before the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fused-onnx", "fused-torchscript", "fused-program"])
def test_a_capture_that_is_not_the_network_is_named_by_its_head(plain, name):
    moved = copy.deepcopy(plain.graph.caller.network)
    with torch.no_grad():
        moved.size.bias += 1
    assert plain.locate(name, graph=FusedGraph(moved, Numbers.spec)) == (
        "; the first operation that diverges, at batch 1: what torch.export captured of head 'size' is already not the "
        "network: its forward depends on values or sizes in Python"
    )


class Large(Numbers):
    """Numbers that fp16 does not hold, between two operations."""

    def features(self, x):
        return super().features(x) * 1e6 * 1e-6


def test_an_operation_that_a_precision_loses_is_named(tmp_path):
    found = made(Large(), tmp_path, Wanted(formats=["torchscript"], precisions=["fp16"]))
    assert found.locate("fused-torchscript") == ""
    words = found.locate("fused-torchscript-fp16")
    assert words.startswith("; the first operation that diverges, at batch 1: 'mul")
    assert "(mul.Tensor), in fp16: " in words
    assert words.endswith("of 16 values are not finite")
