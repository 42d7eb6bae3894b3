"""The same bundle on a CUDA device. Everything here has its twin on the CPU, which runs everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyhead.export.assemble import export
from polyhead.export.compiling import compile_program
from polyhead.export.source import Source, from_run, load_tokenizers
from polyhead.models.reference import load
from polyhead.models.trunks.text import pretrained
from polyhead.models.zoo import smarthome
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine

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
