"""An export proves what it writes, or refuses it and leaves nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from polyhead.export import assemble, parity, staging
from polyhead.export.errors import ExportError, ParityError
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError


def spec(**heads: dict[str, object]) -> ModelSpec:
    heads = heads or {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}}
    return ModelSpec.parse(
        {"name": "tiny", "version": "1", "inputs": {"x": {"kind": "tensor", "shape": [6]}}, "heads": heads}
    )


class Tiny(nn.Module):
    """Two heads on one trunk; subclasses break one thing each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(6, 8)
        self.kind = nn.Linear(8, 3)
        self.size = nn.Linear(8, 1)

    def features(self, x):
        return torch.relu(self.trunk(x))

    def forward(self, x):
        features = self.features(x)
        return {"kind": self.kind(features), "size": self.size(features)}


def source(network: nn.Module, model: ModelSpec | None = None) -> Source:
    model = model or spec()
    return Source(network, model, random_samples(model))


def refuse(network: nn.Module, tmp_path: Path, model: ModelSpec | None = None, error: type = ExportError) -> str:
    """The message of an export that must fail, after which nothing may be left."""
    with pytest.raises(error) as caught:
        assemble.export(source(network, model), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def test_a_bundle_answers_as_the_network_in_both_runtimes(tmp_path):
    network = Tiny()
    bundle, proofs = assemble.export(source(network), tmp_path / "bundle")
    rows = torch.randn(5, 6)
    with torch.inference_mode():
        expected = network.eval()(rows)
    for runtime in ("onnxruntime", "torchscript"):
        outputs = Engine.load(Bundle.open(bundle.folder), runtime, "cpu").run({"x": rows.numpy()})
        for head, value in expected.items():
            np.testing.assert_allclose(outputs[head], value.numpy(), rtol=1e-4, atol=1e-5)
    assert {(p.graph, p.runtime) for p in proofs} == {
        ("fused-onnx", "onnxruntime"),
        ("fused-torchscript", "torchscript"),
    }


def test_parity_json_holds_every_head_and_batch(tmp_path):
    bundle, _ = assemble.export(source(Tiny()), tmp_path / "bundle")
    entries = json.loads((bundle.folder / "parity.json").read_text())
    cases = {f"batch {size}" for size in (1, 2, 3, 7, 64)} | {"row alone against row in batch"}  # no text, no lengths
    for entry in entries:
        assert set(entry["batches"]) == cases
        assert all(set(heads) == {"kind", "size"} for heads in entry["batches"].values())
        assert all(0 <= value < 1e-4 for heads in entry["batches"].values() for value in heads.values())


def test_the_onnx_graph_is_opset_20_with_a_symbolic_batch_and_heads_by_name(tmp_path):
    bundle, _ = assemble.export(source(Tiny()), tmp_path / "bundle")
    model = onnx.load(bundle.folder / "graphs" / "fused.onnx")
    assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", 20)]
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["kind", "size", "polyhead_packed"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param


def test_heads_are_told_apart_by_name_not_by_order(tmp_path):
    class Reversed(Tiny):
        def forward(self, x):
            return dict(reversed(super().forward(x).items()))

    bundle, _ = assemble.export(source(Reversed()), tmp_path / "bundle")
    outputs = Engine.load(bundle, "onnxruntime", "cpu").run({"x": np.ones((2, 6), np.float32)})
    assert outputs["kind"].shape == (2, 3)
    assert outputs["size"].shape == (2, 1)


def test_the_manifest_hashes_every_file(tmp_path):
    bundle, _ = assemble.export(source(Tiny()), tmp_path / "bundle")
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    files = {p.relative_to(bundle.folder).as_posix() for p in bundle.folder.rglob("*") if p.is_file()}
    assert files == {"manifest.json", *manifest["files"]}
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((bundle.folder / name).read_bytes()).hexdigest() == entry["sha256"]


def test_a_head_that_the_network_lacks_is_named_with_what_was_found(tmp_path):
    model = spec(kind={"kind": "classification", "labels": ["a", "b", "c"]}, colour={"kind": "regression"})
    message = refuse(Tiny(), tmp_path, model)
    assert message.startswith("head 'colour' is in the spec, but the network returns no 'colour'; it returns {kind: ")
    assert "float32[2, 3]" in message


def test_a_wrong_number_of_labels_is_named(tmp_path):
    message = refuse(Tiny(), tmp_path, spec(kind={"kind": "classification", "labels": ["a", "b"]}))
    assert message == (
        "head 'kind': the network returns shape [2, 3], the spec wants [batch, 2]: "
        "change the network's layer, or the head's labels or dim"
    )


class Pixels(nn.Module):
    """A label per pixel of a picture of 4 x 6."""

    def __init__(self, labels: int = 3, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ground = nn.Conv2d(3, labels, 3, padding=1)
        self.size = size

    def forward(self, image):
        ground = self.ground(image)
        return {"ground": ground if self.size is None else functional.interpolate(ground, self.size)}


def pixels(labels: int = 3) -> ModelSpec:
    return ModelSpec.parse(
        {
            "name": "field",
            "version": "1",
            "inputs": {"image": {"kind": "image", "size": [4, 6]}},
            "heads": {"ground": {"kind": "segmentation", "labels": [f"label {i}" for i in range(labels)]}},
        }
    )


@pytest.mark.parametrize("size", [None, (8, 12), (2, 3)])
def test_a_model_of_pixels_alone_is_exported_in_any_size(tmp_path, size):
    network = Pixels(size=size)
    bundle, _ = assemble.export(source(network, pixels()), tmp_path / "bundle")
    assert bundle.manifest.graphs[0].packed is None  # there is no answer per row
    rows = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows).permute(0, 3, 1, 2) / 255)["ground"].numpy()
    for runtime in ("onnxruntime", "torchscript"):
        engine = Engine.load(bundle, runtime, "cpu")
        engine.replay_golden()
        np.testing.assert_allclose(engine.run({"image": rows})["ground"], expected, rtol=1e-4, atol=1e-5)


def test_a_wrong_number_of_labels_per_pixel_is_named(tmp_path):
    assert refuse(Pixels(labels=3), tmp_path, pixels(labels=4)) == (
        "head 'ground': the network returns shape [2, 3, 4, 6], the spec wants [batch, 4, height, width]: "
        "change the network's layer, or the head's labels or dim"
    )


def test_labels_that_come_last_are_named(tmp_path):
    class Last(Pixels):
        def forward(self, image):
            return {"ground": super().forward(image)["ground"].permute(0, 2, 3, 1)}

    assert refuse(Last(), tmp_path, pixels()) == (
        "head 'ground': the network returns shape [2, 4, 6, 3], the spec wants [batch, 3, height, width]: "
        "change the network's layer, or the head's labels or dim"
    )


def test_a_mask_of_no_pixels_but_a_row_is_named(tmp_path):
    class Pooled(Pixels):
        def forward(self, image):
            return {"ground": super().forward(image)["ground"].mean((2, 3))}

    assert "returns shape [2, 3], the spec wants [batch, 3, height, width]" in refuse(Pooled(), tmp_path, pixels())


def test_a_network_that_cannot_take_the_inputs_is_explained(tmp_path):
    class Two(Tiny):
        def forward(self, x, mask):
            return super().forward(x * mask)

    assert "forward(x, mask) does not take the spec's inputs (x)" in refuse(Two(), tmp_path)

    class Wider(Tiny):
        def forward(self, x):
            return super().forward(torch.cat([x, x], dim=1))

    message = refuse(Wider(), tmp_path)
    assert "the network does not run on the spec's inputs (x [2, 6], raw): RuntimeError" in message


def test_what_this_version_cannot_export_is_said(tmp_path):
    inputs = {"x": {"kind": "tensor", "shape": ["n", 6]}}
    model = ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": {"s": {"kind": "regression"}}})
    with pytest.raises(ExportError) as caught:
        assemble.export(Source(Tiny(), model, {}), tmp_path / "bundle")
    assert str(caught.value) == (
        "input 'x' has free dimensions (n), which this version cannot export: give whole numbers"
    )
    assert list(tmp_path.iterdir()) == []


class DropoutLeftOn(Tiny):
    def features(self, x):
        return functional.dropout(super().features(x), 0.5, training=True)


class BatchStatistics(Tiny):
    def features(self, x):
        features = super().features(x)
        return features - features.mean(dim=0, keepdim=True)


class DependsOnData(Tiny):
    """Python control flow: a trace keeps one branch."""

    def forward(self, x):
        sign = 1.0 if float(x.sum()) > 0 else -1.0
        return {name: value * sign for name, value in super().forward(x).items()}


class FixedBatch(Tiny):
    def features(self, x):
        return super().features(x).reshape(2, 8)


class OverflowsInFloat32(Tiny):
    def forward(self, x):
        output = super().forward(x)
        return {**output, "size": output["size"] / 0.0}


@pytest.mark.parametrize("network", [DropoutLeftOn, BatchStatistics, DependsOnData, FixedBatch, OverflowsInFloat32])
@pytest.mark.parametrize("formats", [["onnx"], ["torchscript"]])
def test_a_network_whose_numbers_would_not_survive_is_refused(tmp_path, network, formats):
    with pytest.raises(ExportError) as caught:
        assemble.export(source(network()), tmp_path / "bundle", formats)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value)


def test_a_failed_gate_names_head_graph_batch_shape_and_error(tmp_path):
    class Forgets(Tiny):
        """Eager adds something that the trace does not see."""

        def forward(self, x):
            output = super().forward(x)
            return output if torch.jit.is_tracing() else {**output, "size": output["size"] + 0.01}

    with pytest.raises(ParityError) as caught:
        assemble.export(source(Forgets()), tmp_path / "bundle", ["torchscript"])
    message = str(caught.value)
    assert message.startswith(
        "head 'size' of graph graphs/fused.ts (torchscript on cpu) is not eager's: batch 1, shape [1, 1]"
    )
    assert "error 0.01 in row 0" in message


def test_a_weight_changed_after_the_golden_samples_is_caught_by_the_gate(tmp_path, monkeypatch):
    """Between the graph and its proof the eager network moves by 1e-2."""
    network = Tiny()
    write = assemble.FORMATS["onnx"][1]

    def write_then_change(graph, example):
        data = write(graph, example)
        with torch.no_grad():
            network.size.bias += 1e-2
        return data

    monkeypatch.setitem(assemble.FORMATS, "onnx", ("onnx", write_then_change, "onnxruntime"))
    message = refuse(network, tmp_path, error=ParityError)
    assert "head 'size'" in message
    assert "graphs/fused.onnx" in message


def test_an_existing_bundle_is_kept_without_force_and_after_a_failure(tmp_path):
    first, _ = assemble.export(source(Tiny()), tmp_path / "bundle")
    with pytest.raises(ExportError, match="exists already"):
        assemble.export(source(Tiny()), tmp_path / "bundle")
    with pytest.raises(ExportError):
        assemble.export(source(FixedBatch()), tmp_path / "bundle", force=True)
    assert Bundle.open(tmp_path / "bundle").digest == first.digest
    changed = Tiny()
    with torch.no_grad():
        changed.size.bias += 1
    second, _ = assemble.export(source(changed), tmp_path / "bundle", force=True)
    assert Bundle.open(tmp_path / "bundle").digest == second.digest != first.digest
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_link_to_a_bundle_is_followed(tmp_path):
    assemble.export(source(Tiny()), tmp_path / "real", ["onnx"])
    (tmp_path / "current").symlink_to("real")
    bundle, _ = assemble.export(source(Tiny()), tmp_path / "current", ["onnx"], force=True)
    assert (tmp_path / "current").is_symlink()
    assert bundle.folder == tmp_path / "real"


def test_a_publication_that_fails_puts_the_old_bundle_back(tmp_path, monkeypatch):
    first, _ = assemble.export(source(Tiny()), tmp_path / "bundle", ["onnx"])
    new, _ = assemble.export(source(Tiny()), tmp_path / "new", ["onnx"])
    monkeypatch.chdir(new.folder)
    with pytest.raises(OSError, match=r"'\.' -> "):  # no system renames the folder that one stands in by that name
        staging.publish(Path(), tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").digest == first.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "new"]


def test_what_is_no_whole_bundle_is_not_published(tmp_path):
    first, _ = assemble.export(source(Tiny()), tmp_path / "bundle", ["onnx"])
    damaged, _ = assemble.export(source(Tiny()), tmp_path / "new", ["onnx"])
    (damaged.folder / "parity.json").write_text("[]")
    with pytest.raises(BundleError, match=r"parity\.json has 2 bytes"):
        staging.publish(damaged.folder, tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").digest == first.digest


def test_force_replaces_bundles_only(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match="is no bundle"):
        assemble.export(source(Tiny()), tmp_path / "bundle", force=True)
    assert (tmp_path / "bundle" / "precious.txt").read_text() == "mine"


def test_the_same_network_makes_the_same_golden_samples(tmp_path):
    one, _ = assemble.export(source(Tiny()), tmp_path / "one", ["onnx"])
    two, _ = assemble.export(source(Tiny()), tmp_path / "two", ["onnx"])
    name = "golden.safetensors"
    assert one.manifest.files[name] == two.manifest.files[name]


class Pair(NamedTuple):
    shared: torch.Tensor
    tasks: list[torch.Tensor]


@dataclasses.dataclass
class Record:
    kind: torch.Tensor
    size: torch.Tensor


@pytest.mark.parametrize(
    ("wrap", "kind", "size"),
    [
        (lambda o, f: (f, [o["kind"], o["size"]]), "1.0", "1.1"),
        (lambda o, f: Pair(f, [o["kind"], o["size"]]), "tasks.0", "1.1"),
        (lambda o, f: Record(o["kind"], o["size"]), None, None),
        (lambda o, f: {"out": {"k": o["kind"]}, "s": o["size"].squeeze(1)}, "out.k", "s"),
    ],
)
def test_a_heads_leaf_is_found_by_its_path(tmp_path, wrap, kind, size):
    class Wrapped(Tiny):
        def forward(self, x):
            return wrap(super().forward(x), self.features(x))

    heads = {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}}
    for name, path in (("kind", kind), ("size", size)):
        if path is not None:
            heads[name]["output"] = path
    bundle, _ = assemble.export(source(Wrapped(), spec(**heads)), tmp_path / "bundle")
    rows = np.ones((3, 6), np.float32)
    plain = parity.eager(assemble.FusedGraph(Tiny(), spec()), {"x": rows})
    outputs = Engine.load(bundle, "onnxruntime", "cpu").run({"x": rows})
    for head in ("kind", "size"):
        np.testing.assert_allclose(outputs[head], plain[head], rtol=1e-4, atol=1e-5)


def test_a_bare_tensor_is_a_model_of_one_head(tmp_path):
    class Bare(Tiny):
        def forward(self, x):
            return super().forward(x)["size"]

    bundle, _ = assemble.export(source(Bare(), spec(size={"kind": "regression", "output": ""})), tmp_path / "bundle")
    assert Engine.load(bundle, "torchscript", "cpu").run({"x": np.ones((2, 6), np.float32)})["size"].shape == (2, 1)


def test_several_inputs_by_name_or_by_position(tmp_path):
    class Named(Tiny):
        def forward(self, scale, x):
            return super().forward(x * scale.unsqueeze(1))

    inputs = {"x": {"kind": "tensor", "shape": [6]}, "scale": {"kind": "tensor", "shape": []}}
    heads = {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}}
    model = ModelSpec.parse({"name": "two", "version": "1", "inputs": inputs, "heads": heads})
    bundle, _ = assemble.export(source(Named(), model), tmp_path / "bundle")
    rows = {"x": np.ones((2, 6), np.float32), "scale": np.array([1.0, 3.0], np.float32)}
    outputs = Engine.load(bundle, "onnxruntime", "cpu").run(rows)
    assert not np.allclose(outputs["size"][0], outputs["size"][1])


def test_an_embedding_is_normalised_where_the_spec_says_so(tmp_path):
    model = spec(kind={"kind": "embedding", "dim": 3, "normalize": True})
    bundle, _ = assemble.export(source(Tiny(), model), tmp_path / "bundle")
    vectors = Engine.load(bundle, "onnxruntime", "cpu").run({"x": np.ones((2, 6), np.float32)})["kind"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
