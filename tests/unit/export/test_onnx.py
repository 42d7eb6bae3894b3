"""ONNX models: what was wanted of them, and nothing of the machine that wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx as onnx_library
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from polyhead.export import onnx
from polyhead.export.errors import ExportError
from polyhead.export.program import dimensions, exported
from tests.unit.export.networks import KIND, NUMBER, Captured, captured, numbers, reader, seeded

FREE = {"x": {0: "batch", 1: "steps"}, "y": {0: "batch", 1: "steps"}}


def model(
    shape: tuple[str | int, ...] = ("s0", "s1", 4), output: tuple[str | int, ...] = ("s0", "s1", 4), opset: int = 20
) -> onnx_library.ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", output))]
    middle = helper.make_tensor_value_info("middle", TensorProto.FLOAT, shape)
    nodes = [helper.make_node("Relu", ["x"], ["middle"]), helper.make_node("Neg", ["middle"], ["y"])]
    graph = helper.make_graph(nodes, "tiny", values[:1], values[1:], value_info=[middle])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def shapes(made: onnx_library.ModelProto) -> dict[str, list[str | int]]:
    values = (*made.graph.input, *made.graph.output, *made.graph.value_info)
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_free_dimensions_get_their_names_everywhere():
    made = model()
    onnx.ensure(made, ["x"], ["y"], FREE)
    assert shapes(made) == {name: ["batch", "steps", 4] for name in ("x", "y", "middle")}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (model(("s0", 5, 4), ("s0", 5, 4)), "the ONNX graph fixes the steps of 'x' at 5: "),
        (model(("s0", "s1", 4), (2, "s1", 4)), "the ONNX graph fixes the batch of 'y' at 2: "),
        (model(opset=19), "the exporter wrote opset 19, wanted 20"),
    ],
)
def test_a_model_that_is_not_what_was_wanted_is_refused(made: onnx_library.ModelProto, message: str):
    with pytest.raises(ExportError) as caught:
        onnx.ensure(made, ["x"], ["y"], FREE)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("inputs", "outputs"), [(["z"], ["y"]), (["x"], ["z"]), (["x", "z"], ["y"]), (["x"], [])])
def test_other_names_are_refused(inputs: list[str], outputs: list[str]):
    with pytest.raises(ExportError, match=r"^the ONNX graph has \('.'.*\), wanted \("):
        onnx.ensure(model(), inputs, outputs, {})


def test_a_model_that_is_no_onnx_is_refused():
    made = model()
    made.graph.node[0].op_type = "Nothing"
    with pytest.raises(ExportError, match="not valid at opset 20: No Op registered for Nothing"):
        onnx.ensure(made, ["x"], ["y"], FREE)


def written(made: Captured) -> onnx_library.ModelProto:
    program = exported(made.program, made.rows(2), dimensions(made.graph.arrays.values()))
    return onnx.write(program, made.graph.input_names, made.heads)


@pytest.fixture(scope="module")
def read() -> tuple[Captured, onnx_library.ModelProto]:
    made = reader()
    return made, written(made)


def test_a_program_answers_in_onnx_as_it_does_here(read):
    made, proto = read
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for count, length in ((1, 1), (3, 7)):
        rows = made.rows(count, text_tokens=length)
        outputs = session.run(None, {n: r.numpy() for n, r in zip(made.graph.input_names, rows, strict=True)})
        for actual, expected in zip(outputs, made.eager(rows), strict=True):
            np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_holds_its_weights_and_no_notes(read):
    _, proto = read
    data = proto.SerializeToString()
    for place in (str(Path(__file__).parent), str(Path(torch.__file__).parent), "site-packages", "networks.py"):
        assert place.encode() not in data
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert not any(onnx_library.external_data_helper.uses_external_data(t) for t in proto.graph.initializer)
    assert [(o.domain, o.version) for o in proto.opset_import if not o.domain] == [("", onnx.OPSET)]


class Spectrum(nn.Module):
    """Of an operation that ONNX has no form for."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.size = nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x):
        features = torch.linalg.eigvalsh(x.unsqueeze(2) * x.unsqueeze(1))
        return {"kind": self.kind(features), "size": self.size(features)}


def test_an_operation_without_a_form_in_onnx_is_refused_in_one_line():
    with pytest.raises(ExportError, match=r"^the network cannot be exported to ONNX: ") as caught:
        written(captured(seeded(Spectrum), numbers({"kind": KIND, "size": NUMBER})))
    assert "\n" not in str(caught.value)


class NamedAsOperations(nn.Module):
    """Heads and an input that are called as operations of the graph are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, linear):
        relu = self.layer(linear).relu()
        return {"exp": relu.exp(), "relu": relu.neg().exp(), "layer": relu.sum(1, keepdim=True)}


def test_heads_that_are_called_as_operations_are_told_from_them():
    model_spec = numbers({"exp": KIND, "relu": KIND, "layer": NUMBER})
    data = model_spec.model_dump(mode="json")
    made = captured(
        seeded(NamedAsOperations), type(model_spec).parse({**data, "inputs": {"linear": data["inputs"]["x"]}})
    )
    proto = written(made)
    onnx_library.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = made.rows(4)
    outputs = session.run(list(made.heads), {"linear": rows[0].numpy()})
    for actual, expected in zip(outputs, made.eager(rows), strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-4, atol=1e-5)
