"""Texts through the export: a sound network passes, and what would answer wrongly in a server is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from polyhead.export import assemble
from polyhead.export.errors import ExportError, ParityError
from polyhead.export.source import Source, random_samples
from polyhead.export.weights import whole
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.models.trunks.text import TextConfig, TextTrunk
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.runtimes import base
from polyhead.serving.settings import Settings
from polyhead.serving.split import SplitRuntime
from tests.unit.serving.wordpiece import VOCABULARY, tokenizer_json

SIZE = len(VOCABULARY)
HEADS: dict[str, Any] = {
    "intent": {"kind": "classification", "labels": ["a", "b", "c"]},
    "slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
}


def spec(max_length: int = 24, name: str = "text", **heads: dict[str, Any]) -> ModelSpec:
    inputs = {name: {"kind": "text", "tokenizer": "tokenizer.json", "max_length": max_length}}
    return ModelSpec.parse({"name": "tiny", "version": "1", "inputs": inputs, "heads": heads or HEADS})


class Tiny(nn.Module):
    """A sound network on an embedding of each token; subclasses break one thing each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(SIZE, 8)
        self.intent = nn.Linear(8, 3)
        self.slots = nn.Linear(8, 3)

    def tokens(self, input_ids: Tensor) -> Tensor:
        return self.table(input_ids)

    def pooled(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        valid = attention_mask.unsqueeze(2).to(tokens.dtype)
        return (tokens * valid).sum(1) / valid.sum(1).clamp(min=1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        tokens = self.tokens(input_ids)
        return {"intent": self.intent(self.pooled(tokens, attention_mask)), "slots": self.slots(tokens)}


def tokenizers(model: ModelSpec, special: bool = True) -> dict[str, Tokenizer]:
    texts = {name: value for name, value in model.inputs.items() if isinstance(value, TextInput)}
    return {name: Tokenizer(tokenizer_json(special=special), value) for name, value in texts.items()}


def source(
    network: nn.Module, model: ModelSpec | None = None, texts: Sequence[str] = (), special: bool = True
) -> Source:
    model = model or spec()
    found = tokenizers(model, special)
    samples = random_samples(model, tokenizers=found)
    if texts:
        samples = {name: list(texts) for name in samples}
    return Source(network, model, samples, tokenizers=found)


def refuse(tmp_path: Path, made: Source, fmt: str = "torchscript", error: type[ExportError] = ExportError) -> str:
    """The message of an export that must fail: one line, after which nothing may be left."""
    with pytest.raises(error) as caught:
        assemble.export(made, tmp_path / "bundle", [fmt], apart=False)
    assert list(tmp_path.iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    assert str(Path(__file__).parent) not in message
    return message


# --- what passes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Bundle:
    """Every format, trunk and heads apart; tests look at it and leave it as it is."""
    texts = ["turn on the light", "", "Café!"]
    bundle, _ = assemble.export(source(Tiny(), texts=texts), tmp_path_factory.mktemp("bundles") / "sound")
    return bundle


def test_a_sound_network_answers_as_itself_in_every_runtime(sound):
    ids = torch.randint(4, SIZE, (3, 11))
    mask = (torch.arange(11) < torch.tensor([[11], [4], [1]])).long()
    with torch.inference_mode():
        expected = Tiny().eval()(ids, mask)
    wanted = {"intent": expected["intent"].numpy(), "slots": (expected["slots"] * mask.unsqueeze(2)).numpy()}
    rows = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    bundle = Bundle.open(sound.folder)
    for runtime in base.AUTO:
        engine = Engine.load(bundle, runtime, "cpu")
        engine.replay_golden()
        outputs = engine.run(rows)
        for head, value in wanted.items():
            np.testing.assert_allclose(outputs[head], value, rtol=1e-4, atol=1e-5)
    apart = SplitRuntime.load(bundle, "cpu", 1)
    for head, output in zip(wanted, apart.run([*rows.values()], [*wanted]), strict=True):
        np.testing.assert_allclose(output, wanted[head], rtol=1e-4, atol=1e-5)


def test_every_length_and_padding_is_in_parity_json(sound):
    cases = {f"batch {size}" for size in (1, 2, 3, 7, 64)} | {"1 tokens", "24 tokens"}
    cases |= {"row alone against row in batch", "padding that holds other tokens"}
    entries = json.loads((sound.folder / "parity.json").read_text())
    assert {entry["graph"] for entry in entries} == {"fused-onnx", "fused-torchscript", "fused-program", "trunk-onnx"}
    for entry in entries:
        assert cases <= set(entry["batches"])


def test_every_free_dimension_of_every_onnx_graph_is_symbolic(sound):
    for graph in sound.manifest.graphs:
        if graph.format != "onnx":
            continue
        model = onnx.load(sound.folder / graph.file)
        onnx.checker.check_model(whole(sound, graph), full_check=True)
        values = (*model.graph.input, *model.graph.output)
        names = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        assert tuple(names) == (*graph.inputs, *graph.outputs)
        assert {name: shape for name, shape in names.items() if name in SHAPES} == {
            name: SHAPES[name] for name in names if name in SHAPES
        }
        assert all(shape[0] == "batch" for shape in names.values())
        assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", 20)]
    assert sound.manifest.graph("fused-onnx").outputs == ("intent", "slots", "polyhead_packed")


SHAPES: dict[str, list[str | int]] = {
    "input_ids": ["batch", "text_tokens"],
    "attention_mask": ["batch", "text_tokens"],
    "intent": ["batch", 3],
    "slots": ["batch", "text_tokens", 3],
    "polyhead_packed": ["batch", 3],
}


@pytest.mark.parametrize("max_length", [3, 9])
def test_any_greatest_length_is_exported(tmp_path, max_length):
    bundle, _ = assemble.export(source(Tiny(), spec(max_length)), tmp_path / "bundle", ["torchscript"])
    Engine.load(bundle, "torchscript", "cpu").replay_golden()


def test_a_text_without_any_token_is_exported_and_answered(tmp_path):
    """A tokenizer without special tokens makes nothing of an empty text."""
    made = source(Tiny(), texts=["", "turn on the light", " ", "on"], special=False)
    bundle, _ = assemble.export(made, tmp_path / "bundle", ["torchscript", "program"], apart=False)
    for runtime in ("torchscript", "program"):
        engine = Engine.load(bundle, runtime, "cpu")
        engine.replay_golden()
        body = b'{"instances": ["", "the light"], "options": {"raw": true, "scores": true}}'
        (response,) = Responder(engine, Settings()).respond([HttpRequest(body, "application/json")])
        empty, _ = json.loads(response.body)["predictions"]
        assert empty["slots"] == {"entities": [], "words": [], "raw": []}


def test_two_parameters_of_other_names_are_given_by_position(tmp_path):
    class Positional(Tiny):
        def forward(self, tokens, valid):
            return super().forward(tokens, valid)

    bundle, _ = assemble.export(source(Positional()), tmp_path / "bundle", ["torchscript"])
    assert bundle.manifest.graphs[0].inputs == ("input_ids", "attention_mask")


def test_names_count_more_than_the_order_of_parameters(tmp_path):
    class Swapped(Tiny):
        def forward(self, attention_mask, input_ids, token_type_ids=None):
            assert token_type_ids is None
            return super().forward(input_ids, attention_mask)

    bundle, _ = assemble.export(source(Swapped()), tmp_path / "bundle", ["torchscript"])
    row = {"input_ids": np.array([[5, 9]]), "attention_mask": np.array([[1, 1]])}
    with torch.inference_mode():
        expected = Tiny().eval()(*(torch.from_numpy(array) for array in row.values()))
    outputs = Engine.load(bundle, "torchscript", "cpu").run(row)
    np.testing.assert_allclose(outputs["intent"], expected["intent"].numpy(), rtol=1e-4, atol=1e-5)


def test_an_input_whose_name_is_no_identifier_is_exported(tmp_path):
    bundle, _ = assemble.export(source(Tiny(), spec(name="my-text")), tmp_path / "bundle", ["onnx"], apart=False)
    Engine.load(bundle, "onnxruntime", "cpu").replay_golden()
    values = onnx.load(bundle.folder / "graphs" / "fused.onnx").graph.input
    assert {value.type.tensor_type.shape.dim[1].dim_param for value in values} == {"my-text_tokens"}


# --- what is refused ------------------------------------------------------------------------------------------------


class IgnoresTheMask(Tiny):
    def pooled(self, tokens, attention_mask):
        return tokens.sum(1)


class AveragesPadding(Tiny):
    def pooled(self, tokens, attention_mask):
        return (tokens * attention_mask.unsqueeze(2)).mean(1)


class LooksAtPadding(Tiny):
    """The shape of the answer is right with any mask; what padding holds shines through."""

    def pooled(self, tokens, attention_mask):
        return super().pooled(tokens, attention_mask) + tokens[:, -1]


class CountsFromTheRight(Tiny):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(24, 8)

    def tokens(self, input_ids):
        return self.table(input_ids) + self.positions.weight[: input_ids.shape[1]].flip(0)


class ShiftsRight(Tiny):
    def forward(self, input_ids, attention_mask):
        output = super().forward(input_ids, attention_mask)
        return {**output, "slots": output["slots"].roll(1, dims=1)}


class ShiftsLeft(Tiny):
    def forward(self, input_ids, attention_mask):
        output = super().forward(input_ids, attention_mask)
        return {**output, "slots": output["slots"].roll(-1, dims=1)}


OF_ONE_LENGTH = ["turn on the light in set", "in the kitchen on off zoe"]
PADDING = [
    (IgnoresTheMask, "intent"),
    (AveragesPadding, "intent"),
    (LooksAtPadding, "intent"),
    (CountsFromTheRight, "intent"),
    (ShiftsRight, "slots"),
    (ShiftsLeft, "slots"),
]


@pytest.mark.parametrize(
    ("network", "head", "texts"),
    [*((*case, []) for case in PADDING), *((*case, OF_ONE_LENGTH) for case in PADDING[1::2])],
)
def test_an_answer_that_depends_on_padding_is_refused(tmp_path, network, head, texts):
    """Also where no sample has padding: what a server will see is not what the samples happen to be."""
    message = refuse(tmp_path, source(network(), texts=texts), error=ParityError)
    assert re.fullmatch(
        rf"head '{head}' of graph graphs/fused\.ts \(torchscript on cpu\) is not eager's: "
        r"row alone against row in batch, shape \[\d+, .*\]: error .* in row \d+, allowed .* \(.* values beyond it\); "
        "an answer may not depend on padding: the network must use attention_mask",
        message,
    )


def test_onnx_refuses_it_too(tmp_path):
    message = refuse(tmp_path, source(AveragesPadding()), "onnx", ParityError)
    assert message.startswith("head 'intent' of graph graphs/fused.onnx (onnxruntime on cpu) is not eager's: row alone")
    assert message.endswith("the network must use attention_mask")


class PaddingIdMatters(Tiny):
    """Takes its padding from the ids, so that a row alone is right; the mask is not looked at."""

    def pooled(self, tokens, attention_mask):
        return tokens.sum(1)

    def tokens(self, input_ids):
        return self.table(input_ids) * (input_ids != 0).unsqueeze(2)


def test_padding_may_hold_anything(tmp_path):
    message = refuse(tmp_path, source(PaddingIdMatters()), error=ParityError)
    assert "head 'intent'" in message
    assert "padding that holds other tokens" in message
    assert message.endswith("the network must use attention_mask")


class FixedBuffer(Tiny):
    def __init__(self):
        super().__init__()
        self.register_buffer("positions", torch.randn(8, 8))

    def tokens(self, input_ids):
        return self.table(input_ids) + self.positions


def test_a_fixed_number_of_tokens_is_refused(tmp_path):
    message = refuse(tmp_path, source(FixedBuffer()))
    assert re.match(
        r"the network does not run on the spec's inputs \(input_ids \[16, \d\], attention_mask \[16, \d\], raw\): "
        r"RuntimeError: The size of tensor a \(\d\) must match the size of tensor b \(8\)",
        message,
    )


class BakesTheLength(Tiny):
    """Eager does as it should; the trace keeps the example's length, and pads or cuts to it."""

    def pooled(self, tokens, attention_mask):
        length = int(tokens.shape[1])
        return super().pooled(tokens[:, :length], attention_mask[:, :length]) * length


@pytest.mark.parametrize("fmt", ["torchscript", "onnx"])
def test_a_length_that_the_graph_keeps_is_refused(tmp_path, fmt):
    message = refuse(tmp_path, source(BakesTheLength()), fmt)
    if fmt == "onnx":
        assert message.startswith("torch.export refuses the network: Constraints violated (text_tokens)!")
        assert message.endswith("text_tokens = 8")
    else:
        assert "head 'intent'" in message


class NeedsTwoTokens(Tiny):
    def pooled(self, tokens, attention_mask):
        return super().pooled(tokens, attention_mask) + tokens[:, 1] * 0


def test_a_text_of_one_token_must_run(tmp_path):
    assert refuse(tmp_path, source(NeedsTwoTokens())) == (
        "the network does not run on the spec's inputs (input_ids [2, 1], attention_mask [2, 1], raw): "
        "IndexError: index 1 is out of bounds for dimension 1 with size 1"
    )


class FewPositions(Tiny):
    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(16, 8)

    def tokens(self, input_ids):
        return self.table(input_ids) + self.positions(torch.arange(input_ids.shape[1]))


def test_fewer_positions_than_the_spec_allows_are_explained(tmp_path):
    assert refuse(tmp_path, source(FewPositions())) == (
        "the network does not run on the spec's inputs (input_ids [2, 24], attention_mask [2, 24], raw): "
        "IndexError: index out of range in self (max_length of 'text' is 24: lower it if the network takes fewer)"
    )


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = TextTrunk(
            TextConfig(
                vocab_size=SIZE,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=8,
                max_position_embeddings=16,
            )
        )

    def forward(self, input_ids, attention_mask):
        return {"vector": self.trunk(input_ids, attention_mask)["pooled"]}


def test_our_own_trunk_explains_its_positions(tmp_path):
    message = refuse(tmp_path, source(Bert(), spec(vector={"kind": "embedding", "dim": 8})))
    assert message == (
        "the network does not run on the spec's inputs (input_ids [2, 24], attention_mask [2, 24], raw): ValueError: "
        "a row has 24 tokens, this encoder has positions for 16: truncate the input "
        "(max_length of 'text' is 24: lower it if the network takes fewer)"
    )


def test_a_network_that_takes_other_inputs_is_explained(tmp_path):
    class Three(Tiny):
        def forward(self, tokens, types, mask):
            return super().forward(tokens, mask)

    assert refuse(tmp_path, source(Three())) == (
        "forward(tokens, types, mask) does not take the spec's inputs (input_ids, attention_mask): "
        "name the inputs after its parameters, or give as many"
    )


class WithoutTheFirst(Tiny):
    def forward(self, input_ids, attention_mask):
        output = super().forward(input_ids, attention_mask)
        return {**output, "slots": output["slots"][:, 1:]}


class Flat(Tiny):
    def forward(self, input_ids, attention_mask):
        output = super().forward(input_ids, attention_mask)
        return {**output, "slots": output["slots"].flatten(0, 1)}


class FourLabels(Tiny):
    def __init__(self):
        super().__init__()
        self.slots = nn.Linear(8, 4)


def test_a_tokens_head_of_another_length_is_explained(tmp_path):
    assert refuse(tmp_path, source(WithoutTheFirst())) == (
        "head 'slots': the network returns shape [2, 7, 3] for 2 rows, the spec wants [2, 8, 3] "
        "(3 labels for each token, special ones and padding too)"
    )


@pytest.mark.parametrize(("network", "shape"), [(Flat, [16, 3]), (FourLabels, [2, 8, 4])])
def test_a_tokens_head_of_another_shape_is_explained(tmp_path, network, shape):
    assert refuse(tmp_path, source(network())) == (
        f"head 'slots': the network returns shape {shape}, the spec wants [batch, sequence, 3]: "
        "change the network's layer, or the head's labels or dim"
    )


def test_a_sample_that_is_too_long_is_named(tmp_path):
    message = refuse(tmp_path, source(Tiny(), texts=["on", "on " * 30]))
    assert message == (
        "samples: row 1: input 'text': the text has 32 tokens, the model takes 24: "
        "shorten it, or set truncate: true in the spec"
    )


# --- several inputs -------------------------------------------------------------------------------------------------


class Two(Tiny):
    def forward(self, a_input_ids, a_attention_mask, x, b_input_ids, b_attention_mask):
        one = super().forward(a_input_ids, a_attention_mask)
        two = super().forward(b_input_ids, b_attention_mask)
        return {"intent": one["intent"] * x + two["intent"], "slots": two["slots"]}


@pytest.mark.parametrize(
    ("texts", "fmt"),
    [
        ((["turn on"] * 3, ["light"] * 3), "onnx"),
        ((["turn on"] * 3, ["light"] * 3), "torchscript"),
        ((["on", "off the", ""], ["", "in", "bath"]), "torchscript"),
    ],
)
def test_two_texts_of_one_length_are_told_apart(tmp_path, texts, fmt):
    inputs = {
        "a": {"kind": "text", "tokenizer": "t.json", "max_length": 24},
        "x": {"kind": "tensor", "shape": [3]},
        "b": {"kind": "text", "tokenizer": "t.json", "max_length": 16},
    }
    heads = {"intent": HEADS["intent"], "slots": HEADS["slots"] | {"input": "b"}}
    model = ModelSpec.parse({"name": "two", "version": "1", "inputs": inputs, "heads": heads})
    samples = {"a": texts[0], "x": np.ones((3, 3), np.float32), "b": texts[1]}
    made = Source(Two(), model, samples, tokenizers=tokenizers(model))
    bundle, _ = assemble.export(made, tmp_path / "bundle", [fmt], apart=False)
    Engine.load(bundle, "auto", "cpu").replay_golden()
    if fmt != "onnx":
        return
    graph = onnx.load(bundle.folder / "graphs" / "fused.onnx").graph
    free = {value.name: value.type.tensor_type.shape.dim[1].dim_param for value in graph.input}
    assert free["a_input_ids"] == free["a_attention_mask"] != free["b_input_ids"] == free["b_attention_mask"]


# --- enrolled classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "enrolled"), [("who", Prototypes.empty(4)), ("intent", Prototypes.empty(3)), ("nose", Prototypes.empty(3))]
)
def test_classes_of_another_head_are_refused(tmp_path, head, enrolled):
    model = spec(who={"kind": "oneshot", "dim": 3, "output": "intent"}, intent=HEADS["intent"])
    made = source(Tiny(), model)
    made = Source(made.network, model, made.samples, tokenizers=made.tokenizers, prototypes={head: enrolled})
    assert refuse(tmp_path, made) == (
        f"prototypes of {head!r} have vectors {list(enrolled.vectors.shape)}: "
        "give them for a oneshot head of the spec, [classes, dim]"
    )
