"""Who is timed."""

from __future__ import annotations

import pytest

from polyhead.export.timing.contenders import Contender, contenders, devices
from polyhead.serving.errors import DeviceUnavailable
from polyhead.serving.manifest import Manifest


def test_every_fused_graph_in_every_runtime_on_every_device_and_eager_first(made):
    graphs = made.bundle.manifest.graphs
    half = graphs[0].model_copy(update={"id": "fused-onnx-fp16", "precision": "fp16"})
    trunk = graphs[0].model_copy(update={"id": "trunk-onnx", "part": "trunk"})
    fused = tuple(graph for graph in graphs if graph.part == "fused")
    manifest: Manifest = made.bundle.manifest.model_copy(update={"graphs": (*fused, half, trunk)})
    found = contenders(manifest, ["cpu", "cuda:0"], eager=True)
    names = ["eager", "onnxruntime fp32", "torchscript fp32", "program fp32", "onnxruntime fp16"]
    for device in ("cpu", "cuda:0"):
        there = [contender for contender in found if contender.device == device]
        assert there[0].name == "eager"
        # The one entry that may be more: a runtime that reads the program too.
        assert [c.name for c in there if c.runtime != "aotinductor"] == names
    assert contenders(manifest, ["cpu"], eager=False) == [c for c in found if c.device == "cpu" and c.graph]
    assert not any(contender.graph == "trunk-onnx" for contender in found)


def test_a_contender_is_called_by_runtime_and_precision():
    assert Contender("onnxruntime", "int8", "cpu", "fused-onnx-int8").name == "onnxruntime int8"
    assert Contender("eager", "fp32", "cpu").name == "eager"


def test_devices_are_those_asked_for_once_each_and_the_cpu_always():
    assert devices(["cpu", "cpu"]) == ["cpu"]
    assert devices([])[0] == "cpu"
    with pytest.raises(DeviceUnavailable, match="device 'cuda:99' is not there"):
        devices(["cpu", "cuda:99"])
