"""An export proves what it writes, or refuses it and leaves nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
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
from polyhead.serving.runtimes import base
from polyhead.serving.split import SplitRuntime

KIND = {"kind": "classification", "labels": ["a", "b", "c"]}
QUICK = ("torchscript",)  # where the format is no matter: the quickest to write


def spec(**heads: dict[str, object]) -> ModelSpec:
    heads = heads or {"kind": KIND, "size": {"kind": "regression"}}
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
        assemble.export(source(network, model), tmp_path / "bundle", apart=False)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Bundle:
    """Every format, trunk and heads apart; tests look at it and leave it as it is."""
    bundle, _ = assemble.export(source(Tiny()), tmp_path_factory.mktemp("bundles") / "whole")
    return bundle


def test_a_bundle_answers_as_the_network_in_every_runtime(whole):
    rows = torch.randn(5, 6)
    with torch.inference_mode():
        expected = Tiny().eval()(rows)
    bundle = Bundle.open(whole.folder)
    found = [Engine.load(bundle, runtime, "cpu").run({"x": rows.numpy()}) for runtime in base.AUTO]
    apart = SplitRuntime.load(bundle, "cpu", 1)
    found.append(dict(zip(("kind", "size"), apart.run([rows.numpy()], ("kind", "size")), strict=True)))
    for outputs in found:
        for head, value in expected.items():
            np.testing.assert_allclose(outputs[head], value.numpy(), rtol=1e-4, atol=1e-5)


def test_every_graph_is_written_and_proven(whole):
    assert whole.manifest.graph_ids == (
        "fused-onnx",
        "fused-torchscript",
        "fused-program",
        "trunk-onnx",
        "head-onnx.kind",
        "head-onnx.size",
    )
    assert set(whole.manifest.parity) == set(whole.manifest.graph_ids)
    for proof in whole.manifest.parity.values():
        assert 0 <= proof.largest < 1e-5
        assert proof.agreement == 1.0
        assert "cpu" in proof.devices
    assert whole.manifest.unsplit is None


def test_parity_json_holds_every_head_and_batch(whole):
    entries = json.loads((whole.folder / "parity.json").read_text())
    ran = {(entry["graph"], entry["runtime"]) for entry in entries if entry["device"] == "cpu"}
    assert ran >= {
        ("fused-onnx", "onnxruntime"),
        ("fused-torchscript", "torchscript"),
        ("fused-program", "program"),
        ("trunk-onnx", "onnxruntime"),
    }
    cases = {f"batch {size}" for size in (1, 2, 3, 7, 64)} | {"row alone against row in batch"}  # no text, no lengths
    for entry in entries:
        assert cases <= set(entry["batches"])
        assert all(set(heads) == {"kind", "size"} for heads in entry["batches"].values())
        assert all(0 <= value < 1e-4 for heads in entry["batches"].values() for value in heads.values())


def test_the_onnx_graph_is_opset_20_with_a_symbolic_batch_and_heads_by_name(whole):
    model = onnx.load(whole.folder / "graphs" / "fused.onnx")
    assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", 20)]
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["kind", "size", "polyhead_packed"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_manifest_hashes_every_file(whole):
    manifest = json.loads((whole.folder / "manifest.json").read_text())
    files = {p.relative_to(whole.folder).as_posix() for p in whole.folder.rglob("*") if p.is_file()}
    assert files == {"manifest.json", *manifest["files"]}
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((whole.folder / name).read_bytes()).hexdigest() == entry["sha256"]


def test_no_file_tells_of_the_machine_that_wrote_it(whole):
    """Exporters note the lines and folders that each operation came from; another machine's users need not know."""
    own = {str(Path(__file__).parent), str(Path(assemble.__file__).parent), str(Path(torch.__file__).parent)}
    for path in (path for path in whole.folder.rglob("*") if path.is_file()):
        names = _members(path)
        for name, data in names.items():
            for place in (*own, "site-packages", "test_assemble"):
                assert place.encode() not in data, f"{path.name}: {name} names {place}"


def _members(path: Path) -> dict[str, bytes]:
    """A file's content; of a zip archive, each member's."""
    if not zipfile.is_zipfile(path):
        return {path.name: path.read_bytes()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_heads_are_told_apart_by_name_not_by_order(tmp_path):
    class Reversed(Tiny):
        def forward(self, x):
            return dict(reversed(super().forward(x).items()))

    bundle, _ = assemble.export(source(Reversed()), tmp_path / "bundle", QUICK)
    outputs = Engine.load(bundle, "torchscript", "cpu").run({"x": np.ones((2, 6), np.float32)})
    assert outputs["kind"].shape == (2, 3)
    assert outputs["size"].shape == (2, 1)


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


@pytest.mark.parametrize(("size", "formats"), [(None, ["torchscript"]), ((8, 12), ["onnx"]), ((2, 3), ["torchscript"])])
def test_a_model_of_pixels_alone_is_exported_in_any_size(tmp_path, size, formats):
    network = Pixels(size=size)
    bundle, _ = assemble.export(source(network, pixels()), tmp_path / "bundle", formats, apart=False)
    assert bundle.manifest.graphs[0].packed is None  # there is no answer per row
    rows = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows).permute(0, 3, 1, 2) / 255)["ground"].numpy()
    engine = Engine.load(bundle, "auto", "cpu")
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


class Steps(Tiny):
    """A row is any number of steps."""

    def features(self, x):
        return super().features(x).mean(1)


@pytest.mark.parametrize("formats", [["onnx"], ["torchscript"], ["program"]])
def test_a_free_dimension_is_free_in_the_graph(tmp_path, formats):
    inputs = {"x": {"kind": "tensor", "shape": ["steps", 6]}}
    model = ModelSpec.parse(
        {"name": "m", "version": "1", "inputs": inputs, "heads": {"size": {"kind": "regression"}, "kind": KIND}}
    )
    bundle, _ = assemble.export(source(Steps(), model), tmp_path / "bundle", formats, apart=False)
    for rows, steps in ((1, 1), (3, 5), (2, 33)):
        x = torch.randn(rows, steps, 6)
        with torch.inference_mode():
            expected = Steps().eval()(x)
        outputs = Engine.load(bundle, "auto", "cpu").run({"x": x.numpy()})
        for head, value in expected.items():
            np.testing.assert_allclose(outputs[head], value.numpy(), rtol=1e-4, atol=1e-5)
    if formats == ["onnx"]:
        (value,) = onnx.load(bundle.folder / "graphs" / "fused.onnx").graph.input
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == ["batch", "steps", 6]


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


@pytest.mark.parametrize(
    ("network", "formats"),
    [
        *((network, ["torchscript"]) for network in (DropoutLeftOn, BatchStatistics, FixedBatch, OverflowsInFloat32)),
        *((DependsOnData, [form]) for form in ("onnx", "torchscript", "program")),
    ],
)
def test_a_network_whose_numbers_would_not_survive_is_refused(tmp_path, network, formats):
    with pytest.raises(ExportError) as caught:
        assemble.export(source(network()), tmp_path / "bundle", formats, apart=False)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value)


def test_a_failed_gate_names_head_graph_batch_shape_and_error(tmp_path):
    class Forgets(Tiny):
        """Eager adds something that the capture does not see."""

        def forward(self, x):
            output = super().forward(x)
            return output if torch.compiler.is_exporting() else {**output, "size": output["size"] + 0.01}

    with pytest.raises(ParityError) as caught:
        assemble.export(source(Forgets()), tmp_path / "bundle", ["torchscript"])
    message = str(caught.value)
    assert message.startswith(
        "head 'size' of graph graphs/fused.ts (torchscript on cpu) is not eager's: batch 1, shape [1, 1]"
    )
    assert "error 0.01 in row 0" in message


@pytest.mark.parametrize(
    ("form", "file"), [("onnx", "fused.onnx"), ("torchscript", "fused.ts"), ("program", "fused.pt2")]
)
def test_a_weight_changed_after_the_graph_is_caught_by_the_gate(tmp_path, form, file):
    """Between the graph and its proof the eager network moves by 1e-2."""
    network = Tiny()

    def change(what: str) -> None:
        if what.startswith("proving"):
            with torch.no_grad():
                network.size.bias += 1e-2

    with pytest.raises(ParityError) as caught:
        assemble.export(source(network), tmp_path / "bundle", [form], say=change, apart=False)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value).startswith(f"head 'size' of graph graphs/{file} ")


class Branches(Tiny):
    """Python control flow that no row of ours ever takes: torch.export refuses it, a trace is right."""

    def forward(self, x):
        return super().forward(x * 0 if float(x.sum()) > 1e30 else x)


def test_what_cannot_be_captured_is_traced_where_torchscript_alone_is_asked_for(tmp_path):
    said: list[str] = []
    bundle, _ = assemble.export(source(Branches()), tmp_path / "bundle", ["torchscript"], say=said.append)
    assert any(line.endswith("TorchScript alone was asked for, so the network itself is traced") for line in said)
    assert bundle.manifest.graph_ids == ("fused-torchscript",)
    assert bundle.manifest.parts == {}
    assert bundle.manifest.unsplit == "torch.export refuses the network"  # its reason names files of this machine
    engine = Engine.load(bundle, "torchscript", "cpu")
    engine.replay_golden()
    assert engine.graph.packed is not None


@pytest.mark.parametrize(
    ("formats", "precisions"), [(["onnx"], []), (["torchscript", "onnx"], []), (["torchscript"], ["fp16"])]
)
def test_what_cannot_be_captured_is_refused_in_any_other_format_and_precision(tmp_path, formats, precisions):
    with pytest.raises(ExportError, match=r"^torch\.export refuses the network: "):
        assemble.export(source(Branches()), tmp_path / "bundle", formats, precisions=precisions)
    assert list(tmp_path.iterdir()) == []


def test_a_head_to_keep_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ExportError) as caught:
        assemble.export(source(Tiny()), tmp_path / "bundle", precisions=["fp16"], keep=["colour"])
    assert str(caught.value) == "head 'colour' is not in the spec (heads: kind, size)"
    assert list(tmp_path.iterdir()) == []


def test_trunk_and_heads_are_left_out_where_they_are_not_wanted(tmp_path):
    bundle, _ = assemble.export(source(Tiny()), tmp_path / "bundle", QUICK)
    assert bundle.manifest.graph_ids == ("fused-torchscript",)
    assert bundle.manifest.unsplit == "they were not asked for"
    assert set(bundle.manifest.parts) == {"trunk", "heads/kind", "heads/size"}  # they are known all the same


def test_an_existing_bundle_is_kept_without_force_and_after_a_failure(tmp_path):
    first, _ = assemble.export(source(Tiny()), tmp_path / "bundle", QUICK)
    with pytest.raises(ExportError, match="exists already"):
        assemble.export(source(Tiny()), tmp_path / "bundle", QUICK)
    with pytest.raises(ExportError):
        assemble.export(source(FixedBatch()), tmp_path / "bundle", QUICK, force=True)
    assert Bundle.open(tmp_path / "bundle").digest == first.digest
    changed = Tiny()
    with torch.no_grad():
        changed.size.bias += 1
    second, _ = assemble.export(source(changed), tmp_path / "bundle", QUICK, force=True)
    assert Bundle.open(tmp_path / "bundle").digest == second.digest != first.digest
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_link_to_a_bundle_is_followed(tmp_path):
    assemble.export(source(Tiny()), tmp_path / "real", QUICK)
    (tmp_path / "current").symlink_to("real")
    bundle, _ = assemble.export(source(Tiny()), tmp_path / "current", QUICK, force=True)
    assert (tmp_path / "current").is_symlink()
    assert bundle.folder == tmp_path / "real"


def test_a_publication_that_fails_puts_the_old_bundle_back(tmp_path, monkeypatch):
    first, _ = assemble.export(source(Tiny()), tmp_path / "bundle", QUICK)
    new, _ = assemble.export(source(Tiny()), tmp_path / "new", QUICK)
    monkeypatch.chdir(new.folder)
    with pytest.raises(OSError, match=r"'\.' -> "):  # no system renames the folder that one stands in by that name
        staging.publish(Path(), tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").digest == first.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "new"]


def test_what_is_no_whole_bundle_is_not_published(tmp_path):
    first, _ = assemble.export(source(Tiny()), tmp_path / "bundle", QUICK)
    damaged, _ = assemble.export(source(Tiny()), tmp_path / "new", QUICK)
    (damaged.folder / "parity.json").write_text("[]")
    with pytest.raises(BundleError, match=r"parity\.json has 2 bytes"):
        staging.publish(damaged.folder, tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").digest == first.digest


def test_force_replaces_bundles_only(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match="is no bundle"):
        assemble.export(source(Tiny()), tmp_path / "bundle", QUICK, force=True)
    assert (tmp_path / "bundle" / "precious.txt").read_text() == "mine"


def test_the_same_network_makes_the_same_golden_samples(tmp_path):
    one, _ = assemble.export(source(Tiny()), tmp_path / "one", QUICK)
    two, _ = assemble.export(source(Tiny()), tmp_path / "two", QUICK)
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
    bundle, _ = assemble.export(source(Wrapped(), spec(**heads)), tmp_path / "bundle", QUICK)
    rows = np.ones((3, 6), np.float32)
    plain = parity.eager(assemble.FusedGraph(Tiny(), spec()), {"x": rows})
    outputs = Engine.load(bundle, "torchscript", "cpu").run({"x": rows})
    for head in ("kind", "size"):
        np.testing.assert_allclose(outputs[head], plain[head], rtol=1e-4, atol=1e-5)


def test_a_bare_tensor_is_a_model_of_one_head(tmp_path):
    class Bare(Tiny):
        def forward(self, x):
            return super().forward(x)["size"]

    bundle, _ = assemble.export(
        source(Bare(), spec(size={"kind": "regression", "output": ""})), tmp_path / "bundle", QUICK
    )
    assert Engine.load(bundle, "torchscript", "cpu").run({"x": np.ones((2, 6), np.float32)})["size"].shape == (2, 1)


def test_several_inputs_by_name_or_by_position(tmp_path):
    class Named(Tiny):
        def forward(self, scale, x):
            return super().forward(x * scale.unsqueeze(1))

    inputs = {"x": {"kind": "tensor", "shape": [6]}, "scale": {"kind": "tensor", "shape": []}}
    heads = {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}}
    model = ModelSpec.parse({"name": "two", "version": "1", "inputs": inputs, "heads": heads})
    bundle, _ = assemble.export(source(Named(), model), tmp_path / "bundle", QUICK)
    rows = {"x": np.ones((2, 6), np.float32), "scale": np.array([1.0, 3.0], np.float32)}
    outputs = Engine.load(bundle, "torchscript", "cpu").run(rows)
    assert not np.allclose(outputs["size"][0], outputs["size"][1])


def test_an_embedding_is_normalised_where_the_spec_says_so(tmp_path):
    model = spec(kind={"kind": "embedding", "dim": 3, "normalize": True})
    bundle, _ = assemble.export(source(Tiny(), model), tmp_path / "bundle", QUICK)
    vectors = Engine.load(bundle, "torchscript", "cpu").run({"x": np.ones((2, 6), np.float32)})["kind"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
