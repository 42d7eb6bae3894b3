"""Trunk and heads of a bundle, one behind the other: the answers of the whole, and no head that nobody asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.split import SplitRuntime
from tests.unit.serving.wordpiece import VOCABULARY, tokenizer_json

SPEC = ModelSpec.parse(
    {
        "name": "tiny",
        "version": "1",
        "inputs": {"text": {"kind": "text", "tokenizer": "t.json", "max_length": 24}},
        "heads": {
            "slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
            "intent": {"kind": "classification", "labels": ["a", "b", "c"]},
            "urgent": {"kind": "regression"},
        },
    }
)


class Tiny(nn.Module):
    """`intent` pools with the mask itself; `urgent` answers from the intent."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.mix = nn.Embedding(len(VOCABULARY), 8), nn.Linear(8, 8)
        self.slots, self.intent, self.urgent = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(3, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        tokens = self.mix(self.table(input_ids)).relu()
        valid = attention_mask.unsqueeze(2).to(tokens.dtype)
        intent = self.intent((tokens * valid).sum(1) / valid.sum(1).clamp(min=1))
        return {"slots": self.slots(tokens), "intent": intent, "urgent": self.urgent(intent)}


@pytest.fixture(scope="module")
def apart(tmp_path_factory) -> Bundle:
    tokenizers = {"text": Tokenizer(tokenizer_json(), SPEC.inputs["text"])}
    source = Source(Tiny(), SPEC, random_samples(SPEC, tokenizers=tokenizers), tokenizers=tokenizers)
    return export(source, tmp_path_factory.mktemp("bundles") / "tiny", ["onnx"])[0]


def rows(count: int = 3, length: int = 7) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(count)
    mask = (np.arange(length) < generator.integers(1, length + 1, (count, 1))).astype(np.int64)
    return {"input_ids": generator.integers(4, 30, (count, length)), "attention_mask": mask}


def eager(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        found = Tiny().eval()(*(torch.from_numpy(array) for array in given.values()))
    outputs = {name: tensor.numpy() for name, tensor in found.items()}
    return {**outputs, "slots": outputs["slots"] * given["attention_mask"][..., None]}


@pytest.mark.parametrize(("count", "length"), [(1, 1), (3, 7), (9, 24)])
def test_heads_behind_the_trunk_answer_as_the_network(apart: Bundle, count: int, length: int):
    runtime, given = SplitRuntime.load(apart, "cpu", 1), rows(count, length)
    expected = eager(given)
    for name, output in zip(expected, runtime.run([*given.values()], [*expected]), strict=True):
        np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-5)


def test_a_head_runs_on_some_rows_of_the_trunks_features(apart: Bundle):
    """What the trunk said once is enough for any head, and any of the rows."""
    runtime, given = SplitRuntime.load(apart, "cpu", 1), rows(5)
    features = runtime.features(given)
    some = {name: np.ascontiguousarray(array[[4, 1]]) for name, array in features.items()}
    for head, expected in eager(given).items():
        np.testing.assert_allclose(runtime.head(head, some), expected[[4, 1]], rtol=1e-4, atol=1e-5)


def test_only_heads_that_are_asked_for_run(apart: Bundle):
    runtime, given = SplitRuntime.load(apart, "cpu", 1), rows()
    ran: list[str] = []
    for name, (graph, loaded) in list(runtime._heads.items()):
        runtime._heads[name] = (graph, _Noted(loaded, name, ran))
    outputs = runtime.run([*given.values()], ["urgent", "slots"])
    assert ran == ["urgent", "slots"]
    assert [output.shape for output in outputs] == [(3, 1), (3, 7, 3)]


class _Noted:
    """A real runtime that tells when it runs."""

    def __init__(self, runtime, name: str, ran: list[str]) -> None:
        self.name, self.device = runtime.name, runtime.device
        self._runtime, self._head, self._ran = runtime, name, ran

    def run(self, inputs, outputs):
        self._ran.append(self._head)
        return self._runtime.run(inputs, outputs)


def test_an_engine_of_trunk_and_heads_reproduces_the_golden_samples(apart: Bundle):
    engine = Engine.split(apart, "cpu")
    assert set(engine.replay_golden()) == {"slots", "intent", "urgent"}
    given = rows()
    outputs = engine.run(given, ["intent"])
    assert set(outputs) == {"intent"}
    np.testing.assert_allclose(outputs["intent"], eager(given)["intent"], rtol=1e-4, atol=1e-5)


def test_a_bundle_without_them_says_why(mlp):
    with pytest.raises(RuntimeUnavailable) as caught:
        Engine.split(mlp.bundle, "cpu")
    assert str(caught.value) == "bundle mlp/1.0 has no graphs of trunk and heads: they were not asked for"
