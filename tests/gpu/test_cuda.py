"""The same bundle on a CUDA device. Everything here has its twin on the CPU, which runs everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyhead.export.assemble import export
from polyhead.export.compiling import compile_program
from polyhead.export.source import Source, from_run, load_tokenizers
from polyhead.models.arrays import array_specs
from polyhead.models.reference import load
from polyhead.models.trunks.text import pretrained
from polyhead.models.zoo import scenes, smarthome
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.runtimes.buckets import Buckets, Recordable
from polyhead.serving.runtimes.cudagraphs import CudaGraphs

RECORDED = ("onnxruntime", "torchscript", "program")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
def test_the_golden_samples_are_reproduced_on_the_gpu(digits_bundle, runtime):
    engine = Engine.load(Bundle.open(digits_bundle), runtime, "cuda")
    assert engine.runtime.device == "cuda:0"
    assert max(engine.replay_golden().values()) < 1e-2


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
def test_the_gpu_answers_as_the_cpu_does(digits_bundle, runtime):
    bundle = Bundle.open(digits_bundle)
    pixels = {"image": np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)}
    gpu, cpu = (Engine.load(bundle, runtime, device).run(pixels) for device in ("cuda", "cpu"))
    for head, expected in cpu.items():
        np.testing.assert_allclose(gpu[head], expected, rtol=1e-3, atol=1e-3, err_msg=head)


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory):
    """The text model before its fine-tuning: heads of five kinds on the pretrained trunk."""
    torch.manual_seed(0)
    texts = list(smarthome.split(0).test.inputs["text"][:64])
    tokenizers = load_tokenizers(smarthome.SPEC, pretrained())
    source = Source(smarthome.network().eval(), smarthome.SPEC, {"text": texts}, tokenizers=tokenizers)
    bundle, _ = export(source, tmp_path_factory.mktemp("bundles") / "smarthome")
    return bundle


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
def test_texts_are_answered_on_the_gpu_as_at_export(text_bundle, runtime):
    engine = Engine.load(text_bundle, runtime, "cuda")
    assert set(engine.replay_golden()) == set(smarthome.SPEC.heads)


@pytest.fixture(scope="module")
def halves(digits_run, tmp_path_factory):
    """Half precision, proven on the device that it is meant for."""
    out = tmp_path_factory.mktemp("bundles") / "halves"
    bundle, proofs = export(from_run(digits_run), out, precisions=["fp16", "bf16"], keep=["ink"])
    assert {proof.device for proof in proofs if proof.graph.endswith(("fp16", "bf16"))} == {"cuda:0"}
    return bundle


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript", "program"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_reproduces_the_golden_samples_on_the_gpu(halves, runtime, precision):
    engine = Engine.load(halves, runtime, "cuda", precision=precision)
    assert engine.graph.precision == precision
    assert set(engine.replay_golden()) == set(halves.spec.heads)


def test_trunk_and_heads_answer_on_the_gpu_as_they_do_together(digits_bundle):
    bundle = Bundle.open(digits_bundle)
    assert set(Engine.split(bundle, "cuda:0").replay_golden()) == set(bundle.spec.heads)


def test_a_program_compiled_for_the_gpu_reproduces_the_golden_samples(digits_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = Bundle.open(digits_bundle)
    compile_program(bundle, "cuda")
    assert Engine.load(bundle, "aotinductor", "cuda").runtime.device == "cuda:0"


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("gradients", ["sum", "upgrad"])
def test_training_learns_on_the_gpu(tmp_path, precision, gradients):
    model = load("digits")
    recipe = model.recipe.changed({"max_epochs": 8, "precision": precision, "gradients": gradients})
    run = model.train(tmp_path / "run", recipe)
    assert run.record.metrics["digit"]["accuracy"] > 0.5


def test_a_mask_is_learnt_on_the_gpu(tmp_path):
    model = load("scenes")
    run = model.train(tmp_path / "run", model.recipe.changed({"max_epochs": 3}))
    assert run.record.metrics["region"]["pixel_accuracy"] > 0.5


def buckets_of(engine: Engine) -> Buckets:
    assert isinstance(engine.runtime, Recordable)
    assert engine.runtime.buckets is not None, engine.runtime.why
    return engine.runtime.buckets


def rows_of(bundle: Bundle, count: int, seed: int, tokens: int = 16) -> dict[str, np.ndarray]:
    """Random rows of every array; texts of so many tokens, the last ones of some rows padding."""
    generator = np.random.default_rng(seed)
    inputs = {}
    for name, array in array_specs(bundle.spec).items():
        if array.role == "ids":
            inputs[name] = generator.integers(1000, 20000, (count, tokens))
        elif array.role == "mask":
            inputs[name] = (np.arange(tokens) < generator.integers(1, tokens + 1, (count, 1))).astype(np.int64)
        elif array.dtype == "uint8":
            inputs[name] = generator.integers(0, 256, (count, *array.shape), dtype=np.uint8)
        else:
            inputs[name] = generator.standard_normal((count, *array.shape)).astype(array.dtype)
    return inputs


def require_alike(found, expected):
    for head, values in expected.items():
        np.testing.assert_allclose(found[head], values, rtol=1e-3, atol=1e-3, err_msg=head)


@pytest.mark.parametrize("runtime", RECORDED)
def test_batches_of_1_to_64_are_answered_as_on_the_cpu_and_replayed(digits_bundle, runtime):
    bundle = Bundle.open(digits_bundle)
    gpu, cpu = (Engine.load(bundle, runtime, device) for device in ("cuda", "cpu"))
    for count in range(1, 65):
        for seed in range(3):  # first seen, recorded, replayed
            inputs = rows_of(bundle, count, seed)
            require_alike(gpu.run(inputs), cpu.run(inputs))
    buckets = buckets_of(gpu)
    assert (buckets.mode, buckets.why, buckets.recorded) == ("cuda graphs", "", 11)
    assert buckets.replays == 64 * 3 - 2 * 11


@pytest.mark.parametrize("runtime", RECORDED)
def test_texts_of_every_length_are_replayed_each_in_its_own_graph(text_bundle, runtime):
    gpu, cpu = (Engine.load(text_bundle, runtime, device) for device in ("cuda", "cpu"))
    for tokens in (8, 24, 64):
        for count in (1, 3, 12, 33):
            for seed in range(3):
                inputs = rows_of(text_bundle, count, seed, tokens)
                require_alike(gpu.run(inputs), cpu.run(inputs))
    assert buckets_of(gpu).recorded == 12
    assert buckets_of(gpu).mode == "cuda graphs"


@pytest.fixture(scope="module")
def mask_bundle(tmp_path_factory):
    """Scenes before training: a mask beside heads of one output per row."""
    torch.manual_seed(0)
    inputs = {"image": scenes.split(0).test.inputs["image"][:64]}
    source = Source(scenes.network().eval(), scenes.SPEC, inputs)
    return export(source, tmp_path_factory.mktemp("bundles") / "scenes")[0]


@pytest.mark.parametrize("runtime", RECORDED)
def test_masks_are_answered_as_on_the_cpu_asked_for_or_not(mask_bundle, runtime):
    gpu, cpu = (Engine.load(mask_bundle, runtime, device) for device in ("cuda", "cpu"))
    for count in (1, 5, 32):
        for seed in range(3):
            inputs = rows_of(mask_bundle, count, seed)
            require_alike(gpu.run(inputs), cpu.run(inputs))
            assert not set(gpu.single) & set(gpu.run(inputs, [])), "a mask was copied that nobody wants"
    assert buckets_of(gpu).mode == "cuda graphs"


@pytest.mark.parametrize("runtime", RECORDED)
def test_answers_on_the_gpu_are_the_callers_own(digits_bundle, runtime):
    bundle = Bundle.open(digits_bundle)
    engine = Engine.load(bundle, runtime, "cuda")
    engine.warm_up([64, 32])
    answers = [engine.run(rows_of(bundle, count, count)) for count in (64, 32, 64, 31)]
    kept = [{head: output.copy() for head, output in answer.items()} for answer in answers]
    for count in (64, 32):
        engine.run(rows_of(bundle, count, 99))
    for answer, before in zip(answers, kept, strict=True):
        for head, output in before.items():
            np.testing.assert_array_equal(answer[head], output)


def copies(engine: Engine, inputs: dict[str, np.ndarray], heads: list[str]) -> tuple[int, int]:
    """Copies to the device and off it, in one pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        engine.run(inputs, heads)
        torch.cuda.synchronize()
    names = [event.name for event in profile.events()]
    return sum("Memcpy HtoD" in name for name in names), sum("Memcpy DtoH" in name for name in names)


@pytest.mark.parametrize("runtime", RECORDED)
def test_one_copy_brings_every_head_off_the_device(text_bundle, runtime):
    engine = Engine.load(text_bundle, runtime, "cuda")
    inputs = rows_of(text_bundle, 32, 0)
    for _ in range(3):
        engine.run(inputs)
    assert copies(engine, inputs, ["intent", "device", "temperature", "sentence"]) == (2, 1)
    assert copies(engine, inputs, ["intent", "slots"]) == (2, 2)


def test_a_pass_that_looks_at_its_numbers_cannot_be_recorded_and_leaves_the_device_usable():
    def function(x):
        return [x * 2 if x.sum().item() > 0 else x]

    def plain(inputs, _outputs):
        return [function(torch.from_numpy(inputs[0]).cuda())[0].cpu().numpy()]

    buckets = Buckets(plain, CudaGraphs(function, "cuda:0"), {"y": 0})
    for _ in range(4):
        for x in (np.ones((3, 4), np.float32), -np.ones((3, 4), np.float32)):
            np.testing.assert_array_equal(buckets.run([x], ["y"])[0], x * 2 if x.sum() > 0 else x)
    assert buckets.mode == "eager"
    assert "captur" in buckets.why


def test_weights_that_a_head_answers_with_are_not_written_to():
    weight = torch.arange(4.0, device="cuda")

    def function(x):
        return [weight.expand(len(x), 4), x]

    def plain(inputs, outputs):
        found = dict(zip(("w", "x"), function(torch.from_numpy(inputs[0]).cuda()), strict=True))
        return [found[name].cpu().numpy() for name in outputs]

    buckets = Buckets(plain, CudaGraphs(function, "cuda:0"), {"w": 0, "x": 1})
    for count in (1, 1, 1, 3, 3, 3):
        x = np.full((count, 2), count, np.float32)
        found, same = buckets.run([x], ["w", "x"])
        np.testing.assert_array_equal(found, np.tile(np.arange(4, dtype=np.float32), (count, 1)))
        np.testing.assert_array_equal(same, x)
    assert (buckets.mode, buckets.recorded) == ("cuda graphs", 2)


def test_graphs_share_their_memory_and_stay_below_the_limit(text_bundle):
    engine = Engine.load(text_bundle, "program", "cuda")
    engine.warm_up([64])
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    engine.warm_up([32, 16, 8, 4, 2, 1])
    torch.cuda.empty_cache()
    assert buckets_of(engine).recorded == 7
    assert torch.cuda.memory_reserved() - before < 64 << 20


def test_the_bare_replay_runs_what_was_recorded(digits_bundle):
    engine = Engine.load(Bundle.open(digits_bundle), "program", "cuda")
    engine.warm_up([8])
    (inputs,) = rows_of(engine.bundle, 5, 0).values()
    bare = buckets_of(engine).bare([inputs])
    assert bare is not None
    bare()
    assert buckets_of(engine).bare([inputs[:1]]) is None
