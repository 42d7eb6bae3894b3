"""Weights of several graphs in one file: each tensor once, and every graph as it was."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import orjson
import pytest
import torch
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from polyhead.export.assemble import export
from polyhead.export.errors import ExportError
from polyhead.export.source import Source, random_samples
from polyhead.export.weights import ALIGNMENT, LEAST_BYTES, WEIGHTS, SharedWeights, inline, whole
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError, RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.split import SplitRuntime
from tests.unit.export.networks import KIND, NUMBER, numbers

RNG = np.random.default_rng(0)


def model(**weights: Array | TensorProto) -> onnx.ModelProto:
    tensors = [w if isinstance(w, TensorProto) else numpy_helper.from_array(w, n) for n, w in weights.items()]
    nodes = [helper.make_node("Identity", [t.name], [f"{t.name}_out"]) for t in tensors]
    outputs = [helper.make_tensor_value_info(f"{t.name}_out", t.data_type, t.dims) for t in tensors]
    made = helper.make_model(helper.make_graph(nodes, "tiny", [], outputs, tensors))
    onnx.checker.check_model(made)
    return made


def arrays(made: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}


def place(tensor: TensorProto) -> tuple[int, int]:
    info = external_data_helper.ExternalDataInfo(tensor)
    assert info.location == Path(WEIGHTS).name
    return info.offset or 0, info.length or 0


LARGE = RNG.standard_normal((32, 20)).astype(np.float32)


def test_large_tensors_move_and_small_ones_stay():
    least = LEAST_BYTES // 4
    made = model(edge=np.zeros(least, np.float32), small=np.ones(least - 1, np.float32), shape=np.array([1, 2, 3]))
    shared = SharedWeights()
    assert shared.take(made)
    moved = [t.name for t in made.graph.initializer if external_data_helper.uses_external_data(t)]
    assert moved == ["edge"]
    assert not SharedWeights().take(model(small=np.ones(4, np.float32)))


def test_a_tensor_of_several_graphs_is_stored_once():
    fused, trunk, head = model(a=LARGE, b=LARGE * 2), model(other=LARGE), model(b=LARGE * 2)
    shared = SharedWeights()
    for made in (fused, trunk, head):
        shared.take(made)
    assert len(shared.data) == 2 * LARGE.nbytes  # its size is a multiple of the alignment
    assert place(fused.graph.initializer[0]) == place(trunk.graph.initializer[0]) == (0, LARGE.nbytes)
    assert place(fused.graph.initializer[1]) == place(head.graph.initializer[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "bool", "uint8"])
def test_tensors_come_back_as_they_were(dtype: str):
    values = {"odd": RNG.integers(0, 100, 1333).astype(dtype), "even": RNG.integers(0, 2, (64, 32)).astype(dtype)}
    made = model(**values)
    shared = SharedWeights()
    shared.take(made)
    for tensor in made.graph.initializer:
        assert place(tensor)[0] % ALIGNMENT == 0
        assert not tensor.raw_data
    inline(made, shared.data)
    for name, array in arrays(made).items():
        assert array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(array, values[name])
    onnx.checker.check_model(made)


def test_numbers_that_are_not_raw_are_stored_too():
    typed = helper.make_tensor("typed", TensorProto.FLOAT, LARGE.shape, LARGE.flatten().tolist())
    assert typed.float_data
    made = model(typed=typed, raw=LARGE)
    shared = SharedWeights()
    shared.take(made)
    assert len(shared.data) == LARGE.nbytes
    inline(made, shared.data)
    np.testing.assert_array_equal(arrays(made)["typed"], LARGE)


# --- in a bundle ----------------------------------------------------------------------------------------------------


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = torch.nn.Linear(6, 64)
        self.kind = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
        self.size = torch.nn.Bilinear(64, 64, 1)

    def forward(self, x):
        features = self.trunk(x).relu()
        return {"kind": self.kind(features), "size": self.size(features, features)}


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Bundle:
    spec = numbers({"kind": KIND, "size": NUMBER})
    made = Source(Wide(), spec, random_samples(spec))
    return export(made, tmp_path_factory.mktemp("bundles") / "wide", ["onnx"])[0]


@pytest.fixture
def folder(wide, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wide.folder, tmp_path / "copy"))


def forge(folder: Path, name: str, data: bytes) -> Bundle:
    """Replace a file, and enter its new hash, as a careful forger would."""
    (folder / name).write_bytes(data)
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest))
    return Bundle.open(folder)


def test_fused_trunk_and_heads_share_one_file(wide: Bundle):
    network = Wide()
    large = [p.nbytes for p in network.parameters() if p.nbytes >= LEAST_BYTES]
    assert wide.manifest.files[WEIGHTS].size < sum(large) + ALIGNMENT * len(large)
    users = {graph.id for graph in wide.manifest.graphs if graph.weights == WEIGHTS}
    assert users == {"fused-onnx", "trunk-onnx", "head-onnx.kind", "head-onnx.size"}
    graphs = sum(wide.manifest.files[graph.file].size for graph in wide.manifest.graphs)
    assert graphs < wide.manifest.files[WEIGHTS].size


def test_a_graph_with_its_weights_inside_answers_the_same(wide: Bundle):
    graph = wide.manifest.graph("fused-onnx")
    model_proto = whole(wide, graph)
    onnx.checker.check_model(model_proto, full_check=True)
    session = onnxruntime.InferenceSession(model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = RNG.standard_normal((7, 6)).astype(np.float32)
    outputs = Engine.load(wide, "onnxruntime", "cpu").run({"x": x})
    for head, value in zip(("kind", "size"), session.run(["kind", "size"], {"x": x}), strict=True):
        np.testing.assert_array_equal(outputs[head], value)


def test_a_graph_of_another_format_has_no_onnx_model(wide: Bundle):
    graph = wide.manifest.graph("fused-onnx").model_copy(update={"format": "torchscript"})
    with pytest.raises(ExportError, match=r"^graph fused-onnx is torchscript, not onnx$"):
        whole(wide, graph)


def test_the_folder_is_what_any_onnx_tool_reads(wide: Bundle):
    for graph in wide.manifest.graphs:
        loaded = onnx.load(wide.folder / graph.file)
        expected = arrays(whole(wide, graph))
        for name, array in arrays(loaded).items():
            np.testing.assert_array_equal(array, expected[name])


def test_weights_that_were_changed_are_refused(wide: Bundle, folder: Path):
    bundle = Bundle.open(folder)
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[100] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    for load in (
        lambda: Bundle.open(folder),
        lambda: Engine.load(bundle, "onnxruntime", "cpu"),
        lambda: SplitRuntime.load(bundle, "cpu", 1),
        lambda: whole(bundle, bundle.manifest.graph("fused-onnx")),
    ):
        with pytest.raises(BundleError, match=f"{WEIGHTS} was changed"):
            load()


@pytest.mark.parametrize("location", ["other.bin", "../graphs/weights.bin", "/etc/passwd"])
def test_weights_in_a_file_that_the_manifest_does_not_name_are_refused(folder: Path, location: str):
    proto = onnx.load_from_string((folder / "graphs/fused.onnx").read_bytes())
    tensor = next(t for t in proto.graph.initializer if external_data_helper.uses_external_data(t))
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = location
    bundle = forge(folder, "graphs/fused.onnx", proto.SerializeToString())
    with pytest.raises(RuntimeUnavailable) as caught:
        Engine.load(bundle, "onnxruntime", "cpu")
    assert str(caught.value) == (
        f"graphs/fused.onnx keeps tensor {tensor.name!r} in {location!r}, which the manifest does not name: "
        "export it again"
    )


def test_weights_that_are_cut_short_are_refused_by_the_runtime(folder: Path):
    bundle = forge(folder, WEIGHTS, (folder / WEIGHTS).read_bytes()[:-64])
    with pytest.raises(RuntimeUnavailable, match=r"^ONNX Runtime refuses graphs/fused\.onnx: "):
        Engine.load(bundle, "onnxruntime", "cpu")
