from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from polyhead.serving.bundle import GOLDEN, Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError, DeviceUnavailable, GoldenMismatch, RuntimeUnavailable
from polyhead.serving.golden import Array, Golden
from polyhead.serving.manifest import Packed
from polyhead.serving.runtimes import base
from tests.unit.serving.wordpiece import SPECIAL, VOCABULARY, tokenizer_json

RUNTIMES = list(base.AUTO)
GRAPHS = {"onnxruntime": "graphs/fused.onnx", "torchscript": "graphs/fused.ts", "program": "graphs/fused.pt2"}

Forge = Callable[[Path, str, bytes], None]


def _eager_mlp(network: torch.nn.Module, rows: Array) -> dict[str, Array]:
    with torch.inference_mode():
        outputs = {name: tensor.numpy() for name, tensor in network(torch.from_numpy(rows.copy())).items()}
    outputs["vector"] = outputs["vector"] / np.linalg.norm(outputs["vector"], axis=1, keepdims=True)
    return outputs


def test_the_runtimes_tried_here_are_all_there_are():
    assert set(GRAPHS) == set(base.FORMATS) - {"aotinductor"}  # which is compiled first, and tried where that is


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_outputs_are_those_of_eager_pytorch(mlp, runtime: str, rows: int):
    x = np.ascontiguousarray(mlp.samples["x"][:rows])
    outputs = mlp.engine(runtime).run({"x": x})
    expected = _eager_mlp(mlp.network, x)
    assert set(outputs) == set(expected)
    for head, output in outputs.items():
        assert output.shape == expected[head].shape
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected[head], rtol=1e-5, atol=1e-6, err_msg=head)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_go_in_as_pixels_and_are_normalised_inside(picture, runtime: str):
    pixels = np.ascontiguousarray(picture.samples["image"][:5])
    outputs = picture.engine(runtime).run({"image": pixels})
    with torch.inference_mode():
        scaled = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 255
        expected = picture.network((scaled - 0.5) / 0.25)
    for head in ("shape", "ink"):
        np.testing.assert_allclose(outputs[head], expected[head].numpy(), rtol=1e-5, atol=1e-6)


def test_all_runtimes_agree(mlp):
    x = np.ascontiguousarray(mlp.samples["x"])
    one, *others = (mlp.engine(runtime).run({"x": x}) for runtime in RUNTIMES)
    for other in others:
        assert set(one) == set(other)
        for head in one:
            np.testing.assert_allclose(one[head], other[head], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_are_views_of_one_array(mlp, runtime: str):
    outputs = mlp.engine(runtime).run({"x": np.zeros((2, 6), np.float32)})
    bases = {id(output.base if output.base is not None else output) for output in outputs.values()}
    assert len(bases) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_rows_that_cannot_be_written_to_are_taken(mlp, runtime: str):
    """A request's own bytes are read-only; PyTorch would warn of them."""
    data = np.ascontiguousarray(mlp.samples["x"][:2])
    frozen = np.frombuffer(data.tobytes(), np.float32).reshape(2, 6)
    assert not frozen.flags.writeable
    engine = mlp.engine(runtime)
    np.testing.assert_array_equal(engine.run({"x": frozen})["color"], engine.run({"x": data})["color"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_inputs_are_left_as_they_were(mlp, runtime: str):
    x = mlp.samples["x"][:3].copy()
    mlp.engine(runtime).run({"x": x})
    np.testing.assert_array_equal(x, mlp.samples["x"][:3])


def test_views_are_the_columns_of_each_head():
    packed = Packed(output="p", columns={"a": (0, 1), "b": (1, 5)}, shapes={"a": (1,), "b": (2, 2)})
    array = np.arange(15, dtype=np.float32).reshape(3, 5)
    heads = packed.views(array)
    np.testing.assert_array_equal(heads["a"], [[0], [5], [10]])
    np.testing.assert_array_equal(heads["b"][1], [[6, 7], [8, 9]])
    assert heads["b"].shape == (3, 2, 2)


# --- counters and warming up ----------------------------------------------------------------------------------------


def test_forwards_and_rows_are_counted(mlp):
    engine = mlp.engine()
    assert (engine.forwards, engine.rows) == (0, 0)
    engine.run({"x": np.zeros((5, 6), np.float32)})
    engine.run({"x": np.zeros((1, 6), np.float32)})
    assert (engine.forwards, engine.rows) == (2, 6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_warming_up_runs_each_size_three_times(mlp, runtime: str):
    engine = mlp.engine(runtime)
    engine.warm_up([1, 40])  # more than there are golden rows
    assert (engine.forwards, engine.rows) == (6, 3 * 1 + 3 * 40)


# --- golden samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("example", ["mlp", "picture", "logarithm", "lookup", "lexicon", "reader", "pair", "field"])
def test_golden_samples_are_reproduced(runtime: str, example: str, request: pytest.FixtureRequest):
    found = request.getfixturevalue(example)
    differences = found.engine(runtime).replay_golden()
    assert set(differences) == set(found.bundle.spec.heads)
    assert all(0 <= difference < 3e-5 for difference in differences.values())


def _shift(golden: Golden, head: str, row: int, by: float) -> bytes:
    outputs = dict(golden.outputs)
    outputs[head] = outputs[head].copy()
    outputs[head][row, 0] += np.float32(by)
    return Golden(golden.inputs, outputs).dump()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("head", ["color", "level", "position", "tags", "vector"])
def test_a_golden_mismatch_names_head_and_graph(mlp, copy_of, forge: Forge, runtime: str, head: str):
    folder = copy_of(mlp)
    forge(folder, GOLDEN, _shift(mlp.bundle.golden(), head, row=5, by=1e-2))
    engine = Engine.load(Bundle.open(folder), runtime, "cpu")
    with pytest.raises(GoldenMismatch) as caught:
        engine.replay_golden()
    message = str(caught.value)
    assert message.startswith(
        f"bundle mlp/1.0: head {head!r} of {GRAPHS[runtime]} does not reproduce the golden samples "
        f"(together, {runtime} on cpu): error 0.01 in row 5, allowed "
    )
    assert message.endswith("export the bundle again")
    assert "\n" not in message


def test_a_shift_within_the_tolerance_is_told_and_let_through(mlp, copy_of, forge: Forge):
    folder = copy_of(mlp)
    forge(folder, GOLDEN, _shift(mlp.bundle.golden(), "level", row=0, by=5e-6))
    differences = Engine.load(Bundle.open(folder), "onnxruntime", "cpu").replay_golden()
    assert differences["level"] == pytest.approx(5e-6, rel=0.2)
    assert max(v for head, v in differences.items() if head != "level") < 1e-6


def test_another_networks_graph_does_not_reproduce_the_golden_samples(mlp, copy_of, forge: Forge):
    folder = copy_of(mlp)
    model = onnx.load_from_string((folder / "graphs/fused.onnx").read_bytes())
    assert "graphs/weights.bin" in mlp.bundle.manifest.files  # the merged heads; the trunk is small, and in the graph
    weights = next(t for t in model.graph.initializer if list(t.dims) == [6, 16] or list(t.dims) == [16, 6])
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * 1.01, weights.name))
    forge(folder, "graphs/fused.onnx", model.SerializeToString())
    with pytest.raises(GoldenMismatch, match=r"of graphs/fused\.onnx does not reproduce the golden samples"):
        Engine.load(Bundle.open(folder), "onnxruntime", "cpu").replay_golden()


def _forged_tokenizer(lexicon, copy_of, forge: Forge, data: bytes) -> Engine:
    folder = copy_of(lexicon)
    forge(folder, "preprocess/text/tokenizer.json", data)
    return Engine.load(Bundle.open(folder), "onnxruntime", "cpu")


FORGED = {
    "other ids": tokenizer_json((*SPECIAL, *reversed(VOCABULARY[len(SPECIAL) :]))),
    "cased": tokenizer_json(lower=False),
    "no special tokens": tokenizer_json(special=False),
    "a word less": tokenizer_json(t for t in VOCABULARY if t != "there"),
    "letters, so more tokens than the model takes": tokenizer_json(
        token for token in VOCABULARY if token in SPECIAL or len(token.strip("#")) == 1
    ),
}


@pytest.mark.parametrize("name", list(FORGED))
def test_a_forged_tokenizer_is_found_by_its_tokens(lexicon, copy_of, forge: Forge, name: str):
    engine = _forged_tokenizer(lexicon, copy_of, forge, FORGED[name])
    with pytest.raises(GoldenMismatch) as caught:
        engine.replay_golden()
    assert re.fullmatch(
        r"bundle lexicon/1\.0: the tokenizer of 'text' makes other tokens of golden text \d+ than at export: "
        "install the tokenizers version that the manifest names",
        str(caught.value),
    )


def test_a_tokenizer_that_is_the_same_in_other_bytes_is_taken(lexicon, copy_of, forge: Forge):
    spaced = json.dumps(json.loads(tokenizer_json()), indent=2).encode()
    _forged_tokenizer(lexicon, copy_of, forge, spaced).replay_golden()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("head", ["slots", "words"])
def test_a_golden_mismatch_of_a_text_names_the_head(lexicon, copy_of, forge: Forge, runtime: str, head: str):
    folder, golden = copy_of(lexicon), lexicon.bundle.golden()
    golden.outputs[head] = golden.outputs[head] + np.float32(0.01)
    forge(folder, GOLDEN, golden.dump())
    with pytest.raises(GoldenMismatch, match=f"head '{head}' of {re.escape(GRAPHS[runtime])} does not reproduce"):
        Engine.load(Bundle.open(folder), runtime, "cpu").replay_golden()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_of_tokens_and_pixels_come_only_where_wanted(lexicon, field, runtime: str):
    engine = lexicon.engine(runtime)
    rows = lexicon.bundle.golden().inputs
    assert set(engine.run(rows)) == {"slots", "part", "who", "words"}
    assert set(engine.run(rows, ["who"])) == {"who", "words"}
    assert set(engine.run(rows, ["slots", "who"])) == {"slots", "who", "words"}
    np.testing.assert_array_equal(engine.run(rows, ["slots"])["slots"], engine.run(rows)["slots"])
    pixels = field.bundle.golden().inputs
    assert set(field.engine(runtime).run(pixels, [])) == {"wet"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_text_goes_in_as_tokens_of_any_number(reader, runtime: str):
    engine = reader.engine(runtime)
    for rows, length in ((1, 1), (1, 24), (3, 2), (2, 7), (5, 24)):
        generator = np.random.default_rng(length)
        ids = generator.integers(4, 60, (rows, length))
        mask = (np.arange(length) < generator.integers(1, length + 1, (rows, 1))).astype(np.int64)
        with torch.inference_mode():
            expected = reader.network(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        outputs = engine.run({"input_ids": ids, "attention_mask": mask})
        np.testing.assert_allclose(outputs["intent"], expected["intent"].numpy(), rtol=1e-3, atol=2e-5)
        valid = mask == 1
        np.testing.assert_allclose(outputs["slots"][valid], expected["slots"].numpy()[valid], rtol=1e-3, atol=1e-4)
        assert not outputs["slots"][~valid].any()  # what it says of padding is zero


# --- what cannot be loaded ------------------------------------------------------------------------------------------


def test_auto_takes_the_first_runtime_that_has_a_graph(mlp):
    assert Engine.load(mlp.bundle, "auto", "cpu").runtime.name == "onnxruntime"


def test_a_runtime_without_a_graph_is_refused(mlp, tmp_path: Path):
    only = mlp.bundle.manifest.model_copy(update={"graphs": mlp.bundle.manifest.graphs[1:]})
    bundle = Bundle(mlp.bundle.folder, only, mlp.bundle.digest)
    with pytest.raises(RuntimeUnavailable) as caught:
        Engine.load(bundle, "onnxruntime", "cpu")
    assert str(caught.value) == (
        "bundle mlp/1.0 has no graph of fp32 for runtime 'onnxruntime' (it has: torchscript fp32, program fp32): "
        "ask for one of these, or export the bundle with --format and --precision"
    )
    assert Engine.load(bundle, "auto", "cpu").runtime.name == "torchscript"


@pytest.mark.parametrize("runtime", ["tensorrt", "", "onnx"])
def test_an_unknown_runtime_is_refused_with_what_the_bundle_has(mlp, runtime: str):
    with pytest.raises(RuntimeUnavailable) as caught:
        Engine.load(mlp.bundle, runtime, "cpu")
    assert str(caught.value) == (
        f"bundle mlp/1.0 has no graph of fp32 for runtime {runtime!r} "
        "(it has: onnx fp32, torchscript fp32, program fp32): "
        "ask for one of these, or export the bundle with --format and --precision"
    )


def test_a_gpu_that_is_not_there_is_an_error(mlp):
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(DeviceUnavailable) as caught:
        Engine.load(mlp.bundle, "onnxruntime", missing)
    assert str(caught.value) == (
        f"device {missing!r} is not there (PyTorch sees {torch.cuda.device_count()} CUDA devices): "
        "use --device cpu or auto"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_cuda_without_a_gpu_never_falls_back(mlp, runtime: str):
    with pytest.raises(DeviceUnavailable, match="device 'cuda' is not there"):
        Engine.load(mlp.bundle, runtime, "cuda")


def test_devices_resolve():
    assert base.resolve_device("cpu") == "cpu"
    assert base.resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("onnxruntime", "graphs/fused.onnx is no ONNX model"),
        ("torchscript", "TorchScript refuses graphs/fused.ts"),
        ("program", "torch.export cannot load graphs/fused.pt2"),
    ],
)
def test_a_graph_of_other_bytes_is_refused_by_name(mlp, copy_of, forge: Forge, runtime: str, message: str):
    folder = copy_of(mlp)
    forge(folder, GRAPHS[runtime], b"\x80\x04cposix\nsystem\n")
    with pytest.raises(RuntimeUnavailable, match=message) as caught:
        Engine.load(Bundle.open(folder), runtime, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_outside_the_graph_are_refused(mlp, copy_of, forge: Forge):
    folder = copy_of(mlp)
    model = onnx.load_from_string((folder / "graphs/fused.onnx").read_bytes())
    tensor = next(t for t in model.graph.initializer if t.HasField("raw_data"))
    onnx.external_data_helper.set_external_data(tensor, location="../../../etc/passwd")
    tensor.ClearField("raw_data")
    forge(folder, "graphs/fused.onnx", model.SerializeToString())
    with pytest.raises(RuntimeUnavailable) as caught:
        Engine.load(Bundle.open(folder), "onnxruntime", "cpu")
    assert str(caught.value) == (
        f"graphs/fused.onnx keeps tensor {tensor.name!r} in '../../../etc/passwd', which the manifest does not name: "
        "export it again"
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_graph_changed_since_the_bundle_was_opened_is_refused(mlp, copy_of, runtime: str):
    bundle = Bundle.open(copy_of(mlp))
    path = bundle.folder / GRAPHS[runtime]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"{GRAPHS[runtime]} was changed"):
        Engine.load(bundle, runtime, "cpu")
