"""What is written where: ids, files, precisions, and what each graph is meant for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from polyhead.export.assemble import export
from polyhead.export.errors import ExportError
from polyhead.export.parity import AGREEMENT, TOLERANCE
from polyhead.export.source import Source, random_samples
from polyhead.export.weights import whole
from polyhead.export.writing import FORMATS, Wanted
from polyhead.models.zoo import digits
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.manifest import Format, Precision
from tests.unit.export.networks import KIND, NUMBER, numbers


def test_fp32_comes_first_and_int8_is_onnx_alone():
    wanted = Wanted(("onnx", "program"), ("int8", "fp16", "fp32", "fp16"))
    assert wanted.variants == [
        ("onnx", "fp32"),
        ("program", "fp32"),
        ("onnx", "int8"),
        ("onnx", "fp16"),
        ("program", "fp16"),
    ]
    assert Wanted(("torchscript",)).variants == [("torchscript", "fp32")]


def test_int8_without_onnx_is_refused():
    with pytest.raises(ExportError, match=r"^int8 graphs are ONNX graphs: add --format onnx$"):
        _ = Wanted(("torchscript", "program"), ("int8",)).variants


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = torch.nn.Linear(6, 200)
        self.middle = torch.nn.Linear(200, 200)
        self.kind, self.size = torch.nn.Linear(200, 3), torch.nn.Linear(200, 1)

    def forward(self, x):
        features = self.middle(self.trunk(x).relu()).relu()
        return {"kind": self.kind(features), "size": self.size(features)}


def wide(folder: Path, formats: Sequence[Format], *precisions: Precision) -> Bundle:
    """The head `size` is kept in fp32."""
    spec = numbers({"kind": KIND, "size": NUMBER})
    made = Source(Wide(), spec, random_samples(spec))
    return export(made, folder / "wide", formats, precisions=precisions, keep=["size"], apart=False)[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return wide(tmp_path_factory.mktemp("bundles"), ["onnx", "torchscript"], "fp16", "int8")


@pytest.fixture(scope="module")
def brain(tmp_path_factory) -> Bundle:
    """bf16, which ONNX Runtime has on GPUs alone."""
    return wide(tmp_path_factory.mktemp("bundles"), ["torchscript"], "bf16")


def test_graphs_are_named_by_format_and_precision(bundle: Bundle, brain: Bundle):
    assert {graph.id: graph.file for graph in bundle.manifest.graphs} == {
        "fused-onnx": "graphs/fused.onnx",
        "fused-torchscript": "graphs/fused.ts",
        "fused-onnx-fp16": "graphs/fused-fp16.onnx",
        "fused-torchscript-fp16": "graphs/fused-fp16.ts",
        "fused-onnx-int8": "graphs/fused-int8.onnx",
    }
    assert {graph.id: graph.file for graph in brain.manifest.graphs} == {
        "fused-torchscript": "graphs/fused.ts",
        "fused-torchscript-bf16": "graphs/fused-bf16.ts",
    }


def test_each_graph_says_its_precision_its_device_and_what_it_was_held_to(bundle: Bundle, brain: Bundle):
    meant = {"fp32": ("cpu", "cuda"), "fp16": ("cuda",), "bf16": ("cuda",), "int8": ("cpu",)}
    for graph in (*bundle.manifest.graphs, *brain.manifest.graphs):
        assert graph.precision == (graph.id.split("-")[2] if graph.id.count("-") == 2 else "fp32")
        assert graph.meant == meant[graph.precision]
        assert graph.tolerance == TOLERANCE[graph.precision]
        assert graph.agreement == AGREEMENT[graph.precision]
        assert graph.kept == (() if graph.precision == "fp32" else ("size",))
        assert graph.packed is not None
        assert set(graph.packed.columns) == {"kind", "size"}


def test_every_graph_answers_what_eager_does_within_its_tolerance(bundle: Bundle, brain: Bundle):
    for opened in (bundle, brain):
        for graph in opened.manifest.graphs:
            runtime = {"onnx": "onnxruntime", "torchscript": "torchscript"}[graph.format]
            engine = Engine.load(opened, runtime, "cpu", precision=graph.precision)
            assert engine.graph.id == graph.id
            engine.replay_golden()
            outputs = engine.run({"x": np.ones((2, 6), np.float32)})
            assert {output.dtype for output in outputs.values()} == {np.dtype(np.float32)}


def test_lower_precision_shrinks_the_file(bundle: Bundle, brain: Bundle):
    for opened, precision in ((bundle, "fp16"), (brain, "bf16")):
        sizes = {name: entry.size for name, entry in opened.manifest.files.items()}
        assert sizes[f"graphs/fused-{precision}.ts"] < 0.55 * sizes["graphs/fused.ts"]
    stored = {
        graph.precision: sum(len(t.raw_data) for t in whole(bundle, graph).graph.initializer)
        for graph in bundle.manifest.graphs
        if graph.format == "onnx"
    }
    assert stored["fp16"] < 0.55 * stored["fp32"]
    assert stored["int8"] < 0.3 * stored["fp32"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_kept_heads_layer_is_in_fp32_in_the_graph(bundle: Bundle, precision: str):
    model = whole(bundle, bundle.manifest.graph(f"fused-onnx-{precision}"))
    single = [tensor for tensor in model.graph.initializer if sorted(tensor.dims) == [1, 200]]
    assert [tensor.data_type for tensor in single] == [onnx.TensorProto.FLOAT]


def test_what_is_done_is_told(tmp_path: Path):
    spec = numbers({"kind": KIND, "size": NUMBER})
    said: list[str] = []
    export(Source(Wide(), spec, random_samples(spec)), tmp_path / "b", ["torchscript"], say=said.append)
    assert said[0] == "capturing the network"
    assert "writing graphs/fused.ts" in said
    assert said[-1].startswith("proving graphs/fused.ts against eager, head by head, on ")


def test_a_model_of_the_zoo_is_written_in_every_format_without_a_warning(tmp_path: Path):
    """Every warning is an error here: one that PyTorch gives, and is not known to be of its own insides, fails this."""
    torch.manual_seed(0)
    source = Source(digits.network(), digits.SPEC, random_samples(digits.SPEC, rows=8))
    bundle, _ = export(source, tmp_path / "digits", apart=False)
    assert len(bundle.manifest.graphs) == len(FORMATS)
    for graph in bundle.manifest.graphs:
        if graph.format == "onnx":
            onnx.checker.check_model(whole(bundle, graph), full_check=True)
