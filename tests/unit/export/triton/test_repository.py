"""From a bundle to a Triton model repository, which is read, checked and asked as Triton does it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer
from tritonclient.grpc.model_config_pb2 import DataType, ModelInstanceGroup

from polyhead.export.errors import ExportError, ParityError
from polyhead.export.staging import file_entries, write_manifest
from polyhead.export.triton import repository
from polyhead.export.triton.repository import fused_onnx, package_triton
from polyhead.serving.bundle import GOLDEN, Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Golden, fault
from polyhead.serving.prototypes import Prototypes
from tests.unit.export.triton.models import TEXT, TWO
from tests.unit.export.triton.tritonserver import Model

NAMES = ("digits", "texts", "two", "field")


@pytest.fixture(scope="module")
def models(bundles, tmp_path_factory):
    out = tmp_path_factory.mktemp("repository")
    return {name: Model(package_triton(bundle, out)) for name, bundle in bundles.items()}


def as_sent(model: Model, rows):
    """One number a row is sent as `[batch, 1]`."""
    scalars = {door.name for door in model.config.input if door.HasField("reshape")}
    return {name: array.reshape(-1, 1) if name in scalars else array for name, array in rows.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_samples_come_back(bundles, models, name):
    bundle, golden = bundles[name], bundles[name].golden()
    outputs = models[name].ask(as_sent(models[name], golden.inputs))
    graph = bundle.manifest.graph("fused-onnx")
    assert set(outputs) == set(bundle.spec.heads)
    for head, spec in bundle.spec.heads.items():
        assert fault(spec, outputs[head], golden.outputs[head], graph.tolerance) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 3, 64])
def test_outputs_are_the_engines_at_any_batch(bundles, models, name, size):
    golden = bundles[name].golden()
    index = np.arange(size) % golden.rows
    rows = {array: np.ascontiguousarray(values[index]) for array, values in golden.inputs.items()}
    expected = Engine.load(bundles[name], "onnxruntime", "cpu").run(rows)
    for head, output in models[name].ask(as_sent(models[name], rows)).items():
        np.testing.assert_allclose(output, expected[head], rtol=1e-5, atol=1e-6)


def test_pictures_of_another_size(bundles, models):
    rows = {"image": np.random.default_rng(1).random((2, 3, 5, 9)).astype(np.float32)}
    expected = Engine.load(bundles["field"], "onnxruntime", "cpu").run(rows)
    outputs = models["field"].ask(rows)
    assert outputs["ground"].shape == (2, 2, 5, 9)
    for head, output in outputs.items():
        np.testing.assert_allclose(output, expected[head], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "KIND_GPU"), ("int8", "KIND_CPU")])
def test_another_precision_takes_and_gives_the_same_and_says_where_it_belongs(
    bundles, models, tmp_path, precision, kind
):
    bundle = bundles["texts"]
    model = Model(package_triton(bundle, tmp_path, graph=fused_onnx(bundle, precision)))
    for field in ("input", "output"):
        assert list(getattr(model.config, field)) == list(getattr(models["texts"].config, field))
    assert model.parameter("polyhead_precision") == precision
    (group,) = model.config.instance_group
    assert ModelInstanceGroup.Kind.Name(group.kind) == kind
    golden, graph = bundle.golden(), bundle.manifest.graph(f"fused-onnx-{precision}")
    for head, output in model.ask(golden.inputs).items():
        wrong = fault(bundle.spec.heads[head], output, golden.outputs[head], graph.tolerance, graph.agreement)
        assert wrong is None


def test_texts_of_another_length(bundles, models):
    rows = {
        "input_ids": np.array([[2, 5, 6, 3], [2, 7, 3, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    expected = Engine.load(bundles["texts"], "onnxruntime", "cpu").run(rows)
    outputs = models["texts"].ask(rows)
    assert outputs["slots"].shape == (2, 4, 3)
    for head, output in outputs.items():
        np.testing.assert_allclose(output, expected[head], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        (
            "digits",
            {"image": ("UINT8", [8, 8, 1])},
            {"digit": [10], "embedding": [64], "ink": [1], "parity": [2]},
        ),
        (
            "texts",
            {"input_ids": ("INT64", [-1]), "attention_mask": ("INT64", [-1])},
            {"intent": [3], "sentence": [8], "slots": [-1, 3]},
        ),
        (
            "two",
            {"x": ("FP32", [6]), "scale": ("FP32", [1]), "flags": ("BOOL", [3])},
            {"alerts": [2], "heat": [1], "person": [4]},
        ),
        ("field", {"image": ("FP32", [3, -1, -1])}, {"ground": [2, -1, -1], "weather": [2]}),
    ],
)
def test_every_head_is_an_output_and_the_packed_tensor_is_none(models, name, inputs, outputs):
    config = models[name].config
    found = {i.name: (DataType.Name(i.data_type).removeprefix("TYPE_"), list(i.dims)) for i in config.input}
    assert found == inputs
    assert {o.name: list(o.dims) for o in config.output} == outputs
    assert [o.name for o in config.output] == sorted(outputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_warm_up_is_of_one_row_and_of_a_full_batch(models, name):
    assert [size for size, _ in models[name].warm_up()] == [1, models[name].config.max_batch_size]


def test_the_warm_up_of_a_text_is_the_longest_golden_row_without_padding(bundles, models):
    golden = bundles["texts"].golden()
    longest = int(golden.inputs["attention_mask"].sum(axis=1).max())
    for _, rows in models["texts"].warm_up():
        assert rows["attention_mask"].tolist() == [[1] * longest]
        row = int(np.argmax(golden.inputs["attention_mask"].sum(axis=1)))
        np.testing.assert_array_equal(rows["input_ids"][0], golden.inputs["input_ids"][row, :longest])


def test_dynamic_batching_waits_as_long_as_our_own_server(models):
    config = models["two"].config
    assert config.max_batch_size == 64
    assert list(config.dynamic_batching.preferred_batch_size) == [64]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert not config.instance_group


def test_a_gpu_computes_as_the_gate_proved_it(models):
    (cuda,) = models["two"].config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})
    assert models["two"].parameter("cudnn_conv_algo_search") == "1"


def test_labels_of_rows_are_named_and_labels_of_tokens_lie_beside(models):
    assert models["texts"].labels("intent") == TEXT["heads"]["intent"]["labels"]
    assert models["two"].labels("alerts") == ["smoke", "intrusion"]
    assert models["texts"].labels("slots") == []  # Triton would number a row's tokens and labels in one
    assert (models["texts"].folder / "slots_labels.txt").read_text() == "O\nB-x\nI-x\n"


def test_parameters_say_what_the_numbers_mean(bundles, models):
    model = models["two"]
    assert model.parameter("polyhead_model_version") == "1"
    assert models["texts"].parameter("polyhead_model_version") == "2.1-rc"
    assert model.parameter("polyhead_bundle") == bundles["two"].digest
    assert (model.parameter("polyhead_graph"), model.parameter("polyhead_precision")) == ("fused-onnx", "fp32")
    heads = json.loads(model.parameter("polyhead_heads"))
    assert heads["alerts"] == {"kind": "multilabel", "threshold": [0.25, 0.75], "labels": "alerts_labels.txt"}
    assert heads["heat"] == {**TWO["heads"]["heat"], "dim": 1}
    assert heads["person"]["kind"] == "oneshot"
    text = json.loads(models["texts"].parameter("polyhead_inputs"))["text"]
    assert (text["max_length"], text["tokenizer"]) == (24, "1/preprocess/text/tokenizer.json")


def test_tokenizers_and_prototypes_lie_in_the_version(bundles, models):
    folder = models["texts"].folder
    tokenizer = Tokenizer.from_file(str(folder / "1" / "preprocess" / "text" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    golden = bundles["texts"].golden()
    ids = tokenizer.encode(golden.texts["text"][3]).ids
    assert golden.inputs["input_ids"][3, : len(ids)].tolist() == ids
    data = (models["two"].folder / "1" / "prototypes" / "person.safetensors").read_bytes()
    assert Prototypes.load(data, 4).labels == ("ada",)


def test_the_readme_says_what_to_send_and_how_to_read_the_answer(models):
    texts, two = ((models[name].folder / "README.md").read_text("utf-8") for name in ("texts", "two"))
    assert "| `input_ids` | INT64 | [batch, free] | token ids, 0 for padding; at most 24 tokens |" in texts
    assert "1/preprocess/<input>/tokenizer.json" in texts
    assert "free dimensions are equal" in texts
    assert "tokenizer" not in two
    assert "free dimensions" not in two
    assert "| `heat` | FP32 | [batch, 1] | value in °C |" in two
    assert "| `scale` | FP32 | [batch, 1] | numbers |" in two
    assert "a label holds where its sigmoid reaches 0.25, 0.75 |" in two
    assert max(len(line) for line in two.splitlines() if not line.startswith("|")) <= 120


def test_the_model_holds_its_weights(models):
    for model in models.values():
        assert [p.name for p in (model.folder / "1").iterdir() if p.is_file()] == ["model.onnx"]


def test_the_same_bundle_makes_the_same_folder(bundles, models, tmp_path):
    again = package_triton(bundles["two"], tmp_path)
    files = {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    first = models["two"].folder
    assert files == {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()}


def test_a_graph_too_large_for_one_file_keeps_its_weights_beside_it(bundles, tmp_path, monkeypatch):
    bundle = bundles["two"]
    monkeypatch.setattr(repository, "LARGEST", 100)
    model = Model(package_triton(bundle, tmp_path))
    graph = bundle.manifest.graph("fused-onnx")
    assert graph.weights is not None
    assert {p.name for p in (model.folder / "1").iterdir() if p.is_file()} == {"model.onnx", "weights.bin"}
    golden = bundle.golden()
    outputs = model.ask(as_sent(model, golden.inputs))
    np.testing.assert_allclose(outputs["heat"], golden.outputs["heat"], rtol=1e-4, atol=1e-5)


def test_a_precision_or_graph_that_is_not_there_is_named_with_what_is(bundles, tmp_path):
    bundle = bundles["two"]
    assert fused_onnx(bundle) == "fused-onnx"
    with pytest.raises(ExportError) as caught:
        fused_onnx(bundle, "bf16")
    assert str(caught.value) == (
        "bundle two/1 has no fused ONNX graph in bf16 (it has: fp32): "
        "ask for one of these, or export it with --format onnx --precision bf16"
    )
    with pytest.raises(ExportError, match=r"has no fused ONNX graph 'fused-torchscript' \(it has: fused-onnx\)"):
        package_triton(bundle, tmp_path, graph="fused-torchscript")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_reproduce_the_golden_samples_is_refused(bundles, tmp_path):
    bundle = Bundle.open(shutil.copytree(bundles["two"].folder, tmp_path / "bundle"))
    golden = bundle.golden()
    golden.outputs["heat"] = golden.outputs["heat"] + 0.5
    (bundle.folder / GOLDEN).write_bytes(Golden(golden.inputs, golden.outputs, golden.texts).dump())
    write_manifest(bundle.folder, bundle.manifest.model_copy(update={"files": file_entries(bundle.folder)}))
    with pytest.raises(ParityError) as caught:
        package_triton(Bundle.open(bundle.folder), tmp_path / "out")
    assert (
        "head 'heat' of model.onnx, made of graphs/fused.onnx, does not reproduce the golden samples: error 0.5"
        in str(caught.value)
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_is_replaced_only_on_request_and_only_if_it_is_ours_alone(bundles, tmp_path):
    bundle = bundles["two"]
    folder = package_triton(bundle, tmp_path)
    with pytest.raises(ExportError, match="two exists already: give another --out, or --force to replace it"):
        package_triton(bundle, tmp_path)
    (folder / "1" / "model.onnx").write_bytes(b"old")
    assert package_triton(bundle, tmp_path, force=True) == folder
    Model(folder)
    (folder / "2").mkdir()
    with pytest.raises(ExportError, match="two holds 2, which polyhead package did not write: --force would remove it"):
        package_triton(bundle, tmp_path, force=True)
    (folder / "2").rmdir()
    (folder / "config.pbtxt").write_text('name: "two"\n')
    with pytest.raises(ExportError, match="two is no Triton model folder of polyhead package: --force would remove it"):
        package_triton(bundle, tmp_path, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["two"]
