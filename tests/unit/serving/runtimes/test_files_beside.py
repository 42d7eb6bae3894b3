"""What a graph may reach: the files that its bundle lists, and no pickles."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.golden import Tolerance
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import base


def entry(file: str, form: str) -> Graph:
    return Graph(
        id="fused", file=file, format=form, inputs=("x",), outputs=("y",), tolerance=Tolerance(atol=1e-5, rtol=1e-4)
    )  # type: ignore[arg-type]


def test_a_sparse_tensor_kept_elsewhere_is_refused():
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    onnx.external_data_helper.set_external_data(values, "../secret.bin", 0, 8)
    values.ClearField("raw_data")
    values.data_location = TensorProto.EXTERNAL
    places = numpy_helper.from_array(np.array([0, 3], np.int64), "w_places")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        sparse_initializer=[helper.make_sparse_tensor(values, places, [4])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    with pytest.raises(
        RuntimeUnavailable, match=r"keeps tensor 'w' in '\.\./secret\.bin', which the manifest does not"
    ):
        base.load("onnxruntime", entry("graphs/g.onnx", "onnx"), {"graphs/g.onnx": data}, "cpu", 1)


def test_a_program_with_pickled_weights_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data/weights/model_weights_config.json", '{"w": {"use_pickle": true}}')
    with pytest.raises(RuntimeUnavailable, match="holds pickled weights"):
        base.load("program", entry("g.pt2", "program"), {"g.pt2": buffer.getvalue()}, "cpu", 1)


def test_only_what_fp32_promises_is_wider_on_a_gpu():
    fp32, fp16 = Tolerance(atol=1e-5, rtol=1e-4), Tolerance(atol=1e-2, rtol=5e-2, cosine=0.999)
    assert (fp32.on("cuda:0").atol, fp32.on("cuda:0").rtol) == pytest.approx((1e-4, 1e-3))
    assert fp16.on("cuda:0") == fp16
    assert fp32.on("cpu") == fp32
