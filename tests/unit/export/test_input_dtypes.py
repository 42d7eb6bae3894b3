"""Numbers of every dtype the whole way: off the wire, through collation and a graph, none of them changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.samples import random_samples
from polyhead.export.source import Source
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.collate import collate
from polyhead.serving.engine import Engine
from polyhead.serving.protocol.rows import from_bytes
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

# By dtype, two numbers that another dtype on the way would change.
VALUES: dict[str, list[Any]] = {
    "float32": [1.0000001192092896, -16777215.0],
    "float64": [1e9 + 0.25, 1e9 - 0.5],
    "float16": [65504.0, 0.0999755859375],
    "int64": [2**53 + 1, -(2**62) - 3],
    "int32": [2**31 - 1, -(2**31)],
    "int8": [-128, 127],
    "uint8": [255, 128],
    "bool": [True, False],
}
SPEC = ModelSpec.parse(
    {
        "name": "dtypes",
        "version": "1",
        "inputs": {dtype: {"kind": "tensor", "dtype": dtype, "shape": [2]} for dtype in VALUES},
        "heads": {f"of_{dtype}": {"kind": "regression", "dim": 2} for dtype in VALUES},
    }
)


class Dtypes(nn.Module):
    """Of every input something small that only the very number gives."""

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        found = {}
        for dtype, value in inputs.items():
            match dtype:
                case "float64":
                    seen = value - 1e9
                case "int64" | "int32":
                    seen = value.remainder(1009)
                case "bool":
                    seen = torch.where(value, 3.0, -2.0)
                case _:
                    seen = value
            found[f"of_{dtype}"] = seen.to(torch.float32)
        return found


def expected(dtype: str) -> list[float]:
    """In Python's own arithmetic."""
    match dtype:
        case "float64":
            return [value - 1e9 for value in VALUES[dtype]]
        case "int64" | "int32":
            return [value % 1009 for value in VALUES[dtype]]
        case "bool":
            return [3.0 if value else -2.0 for value in VALUES[dtype]]
        case _:
            return [float(value) for value in VALUES[dtype]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = Source(Dtypes().eval(), SPEC, random_samples(SPEC))
    found, _ = export(made, tmp_path_factory.mktemp("dtypes") / "bundle", apart=False)
    return found


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
def test_numbers_of_json_reach_the_graph_as_they_are(bundle: Bundle, runtime: str):
    responder = Responder(Engine.load(bundle, runtime, "cpu"), Settings())
    rows = [VALUES, {dtype: values[::-1] for dtype, values in VALUES.items()}]
    (response,) = responder.respond([HttpRequest(orjson.dumps({"instances": rows}), "application/json")])
    assert response.status == 200, response.body
    one, other = orjson.loads(response.body)["predictions"]
    for dtype in VALUES:
        wanted = np.array(expected(dtype), np.float32)
        np.testing.assert_array_equal(np.float32(one[f"of_{dtype}"]["value"]), wanted)
        np.testing.assert_array_equal(np.float32(other[f"of_{dtype}"]["value"]), wanted[::-1])


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
def test_numbers_of_bytes_reach_the_graph_as_they_are(bundle: Bundle, runtime: str):
    data = {dtype: np.array(values, np.dtype(dtype).newbyteorder("<")).tobytes() for dtype, values in VALUES.items()}
    inputs = {dtype: from_bytes(dtype, SPEC.inputs[dtype], data[dtype], ()) for dtype in VALUES}
    (batch,) = collate(SPEC, [Query(1, inputs, ()), Query(1, inputs, ())], 100)
    assert {name: array.dtype for name, array in batch.inputs.items()} == {name: np.dtype(name) for name in VALUES}
    outputs = Engine.load(bundle, runtime, "cpu").run(batch.inputs)
    for dtype in VALUES:
        np.testing.assert_array_equal(outputs[f"of_{dtype}"], [expected(dtype)] * 2)
