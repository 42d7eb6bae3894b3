"""Heads of one batch on the rows that asked for them: only those rows, and the answers of the fused graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.arrays import array_specs
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.engine import Engine
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.golden import Array, fault
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.runtimes import base
from polyhead.serving.settings import Settings
from tests.alike import assert_alike
from tests.unit.serving.wordpiece import VOCABULARY, tokenizer_json

TEXTS = {
    "name": "texts",
    "version": "1",
    "inputs": {
        "text": {"kind": "text", "tokenizer": "t.json", "max_length": 24},
        "weight": {"kind": "tensor", "shape": [2]},
    },
    "heads": {
        "slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
        "part": {"kind": "tokens", "labels": ["a", "b"]},
        "intent": {"kind": "classification", "labels": ["a", "b", "c"]},
        "urgent": {"kind": "regression"},
        "vector": {"kind": "embedding", "dim": 6, "normalize": True},
    },
}
PICTURES = {
    "name": "pictures",
    "version": "1",
    "inputs": {"image": {"kind": "image", "size": [6, 8]}},
    "heads": {
        "ground": {"kind": "segmentation", "labels": ["a", "b"]},
        "wet": {"kind": "classification", "labels": ["no", "yes", "so"]},
        "size": {"kind": "regression", "dim": 3},
    },
}


class Texts(nn.Module):
    """Tokens that all heads share; `slots` and `vector` also take the mask, `urgent` the tensor and the intent."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(len(VOCABULARY), 8), nn.Linear(8, 8)
        self.slots, self.part = nn.Linear(8, 3), nn.Linear(8, 2)
        self.intent, self.urgent, self.vector = nn.Linear(8, 3), nn.Linear(5, 1), nn.Linear(8, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, weight: Tensor) -> dict[str, Tensor]:
        tokens = self.mix(self.table(input_ids)).relu()
        valid = attention_mask.unsqueeze(2).to(tokens.dtype)
        mean = (tokens * valid).sum(1) / valid.sum(1).clamp(min=1)
        intent = self.intent(mean)
        highest = tokens.masked_fill(valid == 0, -1e4).amax(1)
        return {
            "slots": self.slots(tokens),
            "part": self.part(tokens * valid),
            "intent": intent,
            "urgent": self.urgent(torch.cat([intent, weight], 1)),
            "vector": self.vector(highest),
        }


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3, padding=1)
        self.ground, self.wet, self.size = nn.Conv2d(4, 2, 3, padding=1), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.trunk(image).relu()
        pooled = features.mean((2, 3))
        return {"ground": self.ground(features), "wet": self.wet(pooled), "size": self.size(pooled)}


@dataclass
class Noted:
    """A real runtime that notes what it is given."""

    runtime: base.Runtime
    given: list[list[Array]] = field(default_factory=list)

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        self.given.append(list(inputs))
        return self.runtime.run(inputs, outputs)


def exported(network: Callable[[], nn.Module], data: dict[str, Any], folder: Path) -> Bundle:
    torch.manual_seed(0)
    spec = ModelSpec.parse(data)
    tokenizers = {n: Tokenizer(tokenizer_json(), s) for n, s in spec.inputs.items() if isinstance(s, TextInput)}
    samples = random_samples(spec, tokenizers=tokenizers)
    source = Source(network().eval(), spec, samples, tokenizers=tokenizers)
    return export(source, folder / spec.name, ["onnx"])[0]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Bundle:
    return exported(Texts, TEXTS, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Bundle:
    return exported(Pictures, PICTURES, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module", params=["texts", "pictures"])
def bundle(request) -> Bundle:
    return request.getfixturevalue(request.param)


def cobatching(bundle: Bundle, *apart: str) -> Cobatching:
    return Cobatching.load(bundle, bundle.manifest.graph("fused-onnx"), apart, "cpu", 1)


def rows(bundle: Bundle, count: int) -> dict[str, Array]:
    """Golden rows, every now and then the same."""
    golden = bundle.golden()
    index = np.random.default_rng(count).integers(0, golden.rows, count)
    return {name: golden.inputs[name][index] for name in array_specs(bundle.spec)}


def fused(bundle: Bundle, inputs: Mapping[str, Array]) -> dict[str, Array]:
    graph = bundle.manifest.graph("fused-onnx")
    runtime = base.load("onnxruntime", graph, bundle.graph_files(graph), "cpu", 1)
    heads = bundle.spec.head_names
    return dict(zip(heads, runtime.run([inputs[name] for name in graph.inputs], heads), strict=True))


def subset(inputs: Mapping[str, Array], index: Array) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array[index]) for name, array in inputs.items()}


def everything(bundle: Bundle) -> dict[str, None]:
    return dict.fromkeys(bundle.spec.heads)


def assert_close(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("texts", ("vector",)),  # takes the tokens and the mask
        ("texts", ("slots", "urgent")),  # one output per token; a tensor of the request beside a feature
        ("texts", ("intent", "part", "slots", "urgent", "vector")),  # the trunk alone is left
        ("pictures", ("ground",)),
        ("pictures", ("size", "wet")),  # no head of one output per row is left
    ],
)
def test_the_golden_samples_are_reproduced(request, name: str, apart: tuple[str, ...]):
    bundle = request.getfixturevalue(name)
    golden, tolerance = bundle.golden(), bundle.manifest.graph("fused-onnx").tolerance
    outputs = cobatching(bundle, *apart).run(golden.inputs, everything(bundle))
    assert set(outputs) == set(bundle.spec.heads)
    for head, spec in bundle.spec.heads.items():
        assert fault(spec, outputs[head], golden.outputs[head], tolerance) is None, head


def test_a_head_apart_gets_the_rows_that_asked_and_no_others(bundle: Bundle):
    head = "vector" if bundle.spec.name == "texts" else "ground"
    runtime, inputs = cobatching(bundle, head), rows(bundle, 9)
    graph, loaded = runtime._heads[head]
    noted = Noted(loaded)
    runtime._heads[head] = (graph, noted)
    features = runtime.features(inputs)
    runtime.head_rows.clear()
    asked = np.array([1, 4, 5])
    outputs = runtime.run(inputs, {**everything(bundle), head: asked})
    ((*given,),) = noted.given
    for array, name in zip(given, graph.inputs, strict=True):
        np.testing.assert_array_equal(array, features[name][asked])
        assert array.flags.c_contiguous
    assert len(outputs[head]) == 3
    assert runtime.head_rows == {name: 3 if name == head else 9 for name in bundle.spec.heads}
    for name, expected in fused(bundle, inputs).items():
        assert_close(outputs[name], expected[asked] if name == head else expected)


@pytest.mark.parametrize("asked", [None, np.arange(6)], ids=["all", "all by number"])
def test_all_rows_are_taken_as_they_lie(texts: Bundle, asked: Array | None):
    runtime, inputs = cobatching(texts, "slots"), rows(texts, 6)
    graph, loaded = runtime._heads["slots"]
    noted = Noted(loaded)
    runtime._heads["slots"] = (graph, noted)
    outputs = runtime.run(inputs, {"slots": asked})
    assert noted.given[0][graph.inputs.index("attention_mask")] is inputs["attention_mask"]
    assert_close(outputs["slots"], fused(texts, inputs)["slots"])


def test_rows_side_by_side_are_not_copied(texts: Bundle):
    runtime, inputs = cobatching(texts, "slots"), rows(texts, 6)
    graph, loaded = runtime._heads["slots"]
    noted = Noted(loaded)
    runtime._heads["slots"] = (graph, noted)
    outputs = runtime.run(inputs, {"slots": np.array([2, 3, 4])})
    assert np.shares_memory(noted.given[0][graph.inputs.index("attention_mask")], inputs["attention_mask"])
    assert_close(outputs["slots"], fused(texts, inputs)["slots"][2:5])


def test_a_head_that_nobody_wants_does_not_run(texts: Bundle):
    runtime, inputs = cobatching(texts, "slots", "urgent", "vector"), rows(texts, 4)
    outputs = runtime.run(inputs, {"intent": None, "vector": np.array([], np.int64), "urgent": np.array([3])})
    assert set(outputs) == {"intent", "urgent"}  # nor is `part`, of one output per token, fetched
    assert runtime.head_rows == {"intent": 4, "part": 4, "urgent": 1}


def test_where_every_head_is_apart_and_nobody_asks_the_trunk_rests(pictures: Bundle):
    runtime = cobatching(pictures, "ground", "size", "wet")
    assert runtime.run(rows(pictures, 2), {}) == {}
    assert not runtime.head_rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_of_any_heads_are_as_in_the_fused_graph(data, bundle: Bundle, loaded: dict[tuple[str, ...], Any]):
    heads = bundle.spec.head_names
    apart = tuple(sorted(data.draw(st.sets(st.sampled_from(heads), min_size=1), label="apart")))
    if (bundle.spec.name, *apart) not in loaded:
        loaded[bundle.spec.name, *apart] = cobatching(bundle, *apart)
    count = data.draw(st.integers(1, 7), label="rows")
    wanted: dict[str, Array | None] = {}
    for head in data.draw(st.sets(st.sampled_from(heads)), label="wanted"):
        index = data.draw(st.sets(st.integers(0, count - 1)), label=head)
        wanted[head] = None if len(index) == count else np.array(sorted(index), np.int64)
    inputs = rows(bundle, count)
    outputs = loaded[bundle.spec.name, *apart].run(inputs, wanted)
    expected = fused(bundle, inputs)
    for head, index in wanted.items():
        if head not in apart or index is None:
            assert_close(outputs[head], expected[head])
        elif len(index):
            assert_close(outputs[head], expected[head][index])
        else:
            assert head not in outputs


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[str, ...], Cobatching]:
    """What was loaded already, by bundle and heads apart."""
    return {}


def test_answers_are_those_of_each_row_alone(bundle: Bundle):
    head = "slots" if bundle.spec.name == "texts" else "ground"
    runtime, inputs = cobatching(bundle, head), rows(bundle, 8)
    asked = np.array([0, 3, 6])
    together = runtime.run(inputs, {**everything(bundle), head: asked})
    for row in range(8):
        alone = runtime.run(subset(inputs, np.array([row])), everything(bundle))
        for name, output in alone.items():
            if name != head:
                assert_close(together[name][row], output[0])
        if row in asked:
            assert_close(together[head][list(asked).index(row)], alone[head][0])


@pytest.mark.parametrize("apart", ["urgent", "vector"])  # the head that answers NaN apart, and among the others
def test_a_row_that_is_not_finite_changes_no_neighbour(texts: Bundle, apart: str):
    runtime, inputs = cobatching(texts, apart), rows(texts, 6)
    asked = np.array([1, 2, 4, 5])
    wanted = {**everything(texts), apart: asked}
    sound = runtime.run(inputs, wanted)
    inputs["weight"][2] = [np.nan, np.inf]
    found = runtime.run(inputs, wanted)
    place = 1 if apart == "urgent" else 2
    assert np.isnan(found["urgent"][place]).all()
    for head, output in found.items():
        others = [row for row in range(len(output)) if (head, row) != ("urgent", place)]
        np.testing.assert_array_equal(output[others], sound[head][others])


def test_the_composed_graph_holds_no_weight_of_a_head_apart(texts: Bundle):
    runtime = cobatching(texts, "vector", "slots")
    assert runtime.graph.packed is not None
    assert set(runtime.graph.packed.columns) == {"intent", "urgent"}
    assert not {name for name in runtime.graph.outputs if "vector" in name or "slots" in name}


def test_a_bundle_without_graphs_of_trunk_and_heads_is_refused(mlp):
    with pytest.raises(RuntimeUnavailable) as caught:
        cobatching(mlp.bundle, "color")
    assert str(caught.value) == (
        "bundle mlp/1.0 has no graphs of trunk and heads (they were not asked for), "
        "so that no head can run apart: serve it with apart=none or auto"
    )


def test_a_head_that_is_not_there_is_refused(pictures: Bundle):
    with pytest.raises(RuntimeUnavailable) as caught:
        cobatching(pictures, "grund")
    assert str(caught.value) == ("head 'grund' is not in model pictures/1 (heads: ground, wet, size): check apart")


def engine(bundle: Bundle, apart: str) -> Engine:
    return Engine.of(bundle, Chosen(bundle.manifest.graph("fused-onnx"), "onnxruntime", ""), "cpu", 1, apart)


def test_an_engine_replays_its_golden_samples(texts: Bundle):
    made = engine(texts, "slots,vector")
    assert made.apart == ("slots", "vector")
    assert max(made.replay_golden().values()) < 1e-4


WORDS = ["turn on the kitchen light", "café", "hello there hello there", "set 21.5", ""]
INSTANCE = st.builds(
    lambda text, weight: {"text": text, "weight": [weight, 1.0]},
    st.sampled_from(WORDS),
    st.sampled_from([0.5, -2.0, 1e39]),  # the last is infinite in 32 bits: a request that is refused by itself
)
REQUEST = st.fixed_dictionaries(
    {
        "instances": st.lists(INSTANCE, min_size=1, max_size=3),
        "heads": st.lists(st.sampled_from(sorted(TEXTS["heads"])), min_size=1, unique=True),
    },
)


@pytest.fixture(scope="module", params=[1024, 2], ids=["one pass", "several passes"])
def responders(request, texts: Bundle) -> tuple[Responder, Responder]:
    """The fused graph behind one of them; `slots` and `urgent` apart behind the other."""
    settings = Settings(max_rows_per_forward=request.param)
    fused, planned = (Responder(engine(texts, apart), settings) for apart in ("none", "slots,urgent"))
    return fused, planned


@settings(max_examples=40, deadline=None)
@given(bodies=st.lists(REQUEST, min_size=1, max_size=8))
def test_requests_are_answered_as_by_the_fused_graph_and_as_alone(responders, bodies: list[dict[str, Any]]):
    """Whatever heads their neighbours want, and whatever becomes of their neighbours."""
    fused, planned = responders
    requests = [HttpRequest(orjson.dumps(body), "application/json") for body in bodies]
    before = dict(planned.engine.head_rows)
    together = planned.respond(requests)
    good = [body for body, response in zip(bodies, together, strict=True) if response.status == 200]
    for head in ("slots", "urgent"):
        asked = sum(len(body["instances"]) for body in good if head in body["heads"])
        assert planned.engine.head_rows.get(head, 0) - before.get(head, 0) == asked
    for body, request, response, expected in zip(bodies, requests, together, fused.respond(requests), strict=True):
        (alone,) = planned.respond([request])
        assert response.status == expected.status == alone.status == (200 if body in good else 422)
        assert_alike(orjson.loads(response.body), orjson.loads(expected.body))
        assert_alike(orjson.loads(response.body), orjson.loads(alone.body))
