"""The manifest's entries: what they say of a graph, and what is no manifest."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from polyhead.serving.golden import Tolerance
from polyhead.serving.manifest import FileEntry, Graph, Manifest, Packed, Part, Proof

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-4)


def graph(**changes: Any) -> Graph:
    values = {"id": "fused-onnx", "file": "graphs/fused.onnx", "format": "onnx", "inputs": ("x",), "outputs": ("y",)}
    return Graph(**{**values, "tolerance": TOLERANCE, **changes})


def test_a_graph_is_fused_and_exact_where_nothing_else_is_said():
    made = graph()
    assert (made.part, made.head, made.precision, made.kept, made.agreement) == ("fused", None, "fp32", (), 1.0)
    assert made.meant == ("cpu", "cuda")
    assert made.files == ("graphs/fused.onnx",)


def test_shared_weights_are_among_a_graphs_files():
    assert graph(weights="graphs/weights.bin").files == ("graphs/fused.onnx", "graphs/weights.bin")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "pickle"},
        {"precision": "fp64"},
        {"part": "tail"},
        {"meant": ("tpu",)},
        {"agreement": 1.1},
        {"agreement": -0.1},
        {"file": "../fused.onnx"},
        {"weights": "/graphs/weights.bin"},
        {"tolerance": None},
        {"colour": "red"},
    ],
)
def test_an_impossible_graph_is_refused(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        graph(**changes)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        (FileEntry, {"sha256": "ab", "size": 1}),
        (FileEntry, {"sha256": "0" * 64, "size": -1}),
        (FileEntry, {"sha256": "A" * 64, "size": 1}),
        (Part, {"parameters": -1, "flops": 1}),
        (Part, {"parameters": 1.5, "flops": 1}),
        (Part, {"parameters": 1}),
        (Proof, {"largest": 0.1, "agreement": 2.0, "devices": ()}),
        (Packed, {"output": "p", "columns": {"a": (0, 1, 2)}, "shapes": {}}),
    ],
)
def test_impossible_entries_are_refused(entry: type[Any], values: dict[str, Any]):
    with pytest.raises(ValidationError):
        entry(**values)


def test_operations_may_be_unknown():
    assert Part(parameters=3, flops=None).flops is None


def test_graphs_are_found_by_their_id(mlp):
    manifest = mlp.bundle.manifest
    assert manifest.graph_ids == ("fused-onnx", "fused-torchscript", "fused-program")
    for name in manifest.graph_ids:
        assert manifest.graph(name).id == name
    with pytest.raises(KeyError):
        manifest.graph("fused-onnx-fp16")


def test_a_manifest_is_read_as_it_was_written(mlp):
    manifest = mlp.bundle.manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.format == 2
    assert manifest.graph("fused-onnx").weights == "graphs/weights.bin"
    assert set(manifest.parts) == {"trunk", *(f"heads/{name}" for name in manifest.spec.heads)}
    assert manifest.parts["trunk"].parameters == 6 * 16 + 16
    assert manifest.parts["heads/color"].parameters == 16 * 4 + 4


def test_a_manifest_of_the_first_format_is_refused(mlp):
    data = mlp.bundle.manifest.model_dump(mode="json")
    with pytest.raises(ValidationError, match="format"):
        Manifest.model_validate({**data, "format": 1})
    with pytest.raises(ValidationError, match="graphs"):
        Manifest.model_validate({**data, "graphs": []})
