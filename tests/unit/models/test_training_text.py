"""Training of texts, with a head of every kind that texts have, and what such a run leaves."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from torch import nn

from polyhead.models.data import Rows, Split
from polyhead.models.heads import build_head
from polyhead.models.learning import history
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.spec import ModelSpec, SpecError
from polyhead.models.textarray import array_to_texts
from polyhead.models.tokenizer import Tokenizer
from polyhead.models.training import train
from tests.unit.models.wordpieces import write_tokenizer

SPEC = ModelSpec.parse(
    {
        "name": "rooms",
        "version": "1.0",
        "inputs": {"text": {"kind": "text", "tokenizer": "parts/tokenizer.json", "max_length": 24}},
        "heads": {
            "intent": {"kind": "classification", "labels": ["on", "off"]},
            "device": {"kind": "multilabel", "labels": ["light", "lamp"]},
            "slots": {"kind": "tokens", "labels": ["O", "B-room", "I-room"]},
            "degrees": {"kind": "regression", "unit": "°C"},
            "sentence": {"kind": "embedding", "dim": 8},
            "person": {"kind": "oneshot", "dim": 4, "labels": ["on", "off", "nobody"]},
        },
    }
)
RECIPE = Recipe(max_epochs=16, batch_size=16, learning_rate=2e-2, class_weights="balanced", label_smoothing=0.05)
ROOMS = ("kitchen", "my room", "Küche", "KITCHEN light room")


class Trunk(nn.Module):
    """Word vectors, a look at both neighbours, and their mean."""

    def __init__(self, width=16):
        super().__init__()
        self.words = nn.Embedding(200, width)
        self.around = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, input_ids, attention_mask):
        valid = attention_mask[:, :, None].float()
        vectors = self.words(input_ids) * valid
        tokens = torch.relu(vectors + self.around(vectors.transpose(1, 2)).transpose(1, 2)) * valid
        return {"tokens": tokens, "pooled": tokens.sum(dim=1) / valid.sum(dim=1)}

    def blocks(self):
        return [self.words, self.around]


def network():
    return MultiTaskNetwork(Trunk(), {name: build_head(head, 16) for name, head in SPEC.heads.items()})


def rows(count, seed):
    random = np.random.default_rng(seed)
    texts, targets = [], {name: [] for name in SPEC.heads}
    for index in range(count):
        on, room, lamp, warm = (
            int(random.integers(2)),
            ROOMS[random.integers(len(ROOMS))],
            random.random() < 0.5,
            random.integers(20, 23),
        )
        start = f"please turn {'on' if on else 'off'} the {'lamp' if lamp else 'light'} in the "
        texts.append(f"{start}{room}" + (f" at {warm} degrees" if index % 2 else ""))
        targets["intent"].append(1 - on)
        targets["device"].append([not lamp, lamp])
        targets["slots"].append(((len(start), len(start) + len(room), "room"),) if index % 5 else None)
        targets["degrees"].append([warm if index % 2 else np.nan])
        targets["sentence"].append(1 - on if index % 3 else -1)
        targets["person"].append(1 - on)
    slots = np.empty(count, dtype=object)
    slots[:] = targets.pop("slots")
    kinds = {"device": np.float32, "degrees": np.float32}
    columns = {name: np.array(values, dtype=kinds.get(name, np.int64)) for name, values in targets.items()}
    return Rows({"text": np.array(texts, dtype=object)}, {**columns, "slots": slots})


SPLIT = Split(rows(240, 0), rows(60, 1), rows(80, 2))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def run(tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "rooms"
    return train(SPEC, lambda _: network(), SPLIT, RECIPE, out, "rooms:network", tokenizers={"text": tokenizer})


def test_every_head_learns(run):
    metrics = run.record.metrics
    assert metrics["intent"]["accuracy"] > 0.95
    assert metrics["device"]["f1"] > 0.95
    assert metrics["slots"]["span_f1"] > 0.9
    assert metrics["degrees"]["mae"] < 2
    assert metrics["sentence"]["nearest_neighbour_accuracy"] > 0.9
    assert metrics["person"]["nearest_prototype_accuracy"] > 0.95


def test_the_history_has_every_heads_loss_and_metrics(run):
    entries = history.read(run.history)
    assert len(entries) == 16
    for entry in entries:
        assert set(entry["train"]) == set(entry["validation"]) == set(entry["weights"]) == set(SPEC.heads)
        assert set(entry["validation"]["slots"]) == {"loss", "span_f1", "token_accuracy"}
        assert set(entry["learning_rates"]) == {"heads", "trunk"}
        assert entry["trainable"] == run.record.parameters.total
    assert entries[-1]["train"]["intent"] < entries[0]["train"]["intent"]


def test_samples_are_the_held_out_texts_as_they_came(run):
    samples = load_file(run.samples)
    assert array_to_texts(samples["text"]) == SPLIT.test.inputs["text"][:64].tolist()


def test_the_tokenizer_lies_where_the_spec_says_byte_for_byte(run, tokenizer):
    kept = run.folder / "parts" / "tokenizer.json"
    assert kept.read_bytes() == tokenizer.read_bytes()


def test_predictions_are_those_of_the_written_weights_in_the_order_of_the_rows(run, tokenizer):
    found = load_file(run.predictions)
    assert set(found) == {f"{name}.{part}" for name in SPEC.heads for part in ("outputs", "targets")}
    model = network()
    model.load_state_dict(load_tensors(run.weights))
    model.eval()
    encoder = Tokenizer.load(tokenizer, SPEC.inputs["text"])
    for row in (0, 7, 79):
        (encoding,) = encoder.encode([SPLIT.test.inputs["text"][row]])
        ids = torch.from_numpy(encoding.ids)[None]
        with torch.inference_mode():
            alone = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        for name in SPEC.heads:
            output = found[f"{name}.outputs"][row]
            if name == "slots":
                output = output[: ids.shape[1]]
            elif name == "person":
                alone[name] = nn.functional.normalize(alone[name], dim=1)
            np.testing.assert_allclose(output, alone[name][0].numpy(), rtol=1e-4, atol=1e-5)
    for name in ("intent", "device", "degrees", "sentence", "person"):
        np.testing.assert_array_equal(found[f"{name}.targets"], SPLIT.test.targets[name])
    slots = found["slots.targets"]
    assert slots.shape == found["slots.outputs"].shape[:2]
    assert [(row == -1).all() for row in slots] == [spans is None for spans in SPLIT.test.targets["slots"]]


def test_prototypes_are_the_classes_mean_vectors_over_the_training_rows(run, tokenizer):
    found = load_file(run.prototypes)
    assert set(found) == {"person", "person.examples"}
    assert found["person.examples"].tolist() == np.bincount(SPLIT.train.targets["person"], minlength=3).tolist()
    assert (found["person"].dtype, found["person"].shape) == (np.float32, (3, 4))
    assert np.isnan(found["person"][2]).all()  # nobody is in the training rows
    test, classes = load_file(run.predictions)["person.outputs"], SPLIT.test.targets["person"]
    for label in (0, 1):
        prototype = found["person"][label]
        assert np.linalg.norm(test[classes == label].mean(axis=0) - prototype) < 0.15
    distances = np.linalg.norm(test[:, None] - found["person"][None, :2], axis=2)
    assert (distances.argmin(axis=1) == classes).mean() > 0.95


def test_a_run_without_oneshot_heads_has_no_prototypes(tokenizer, tmp_path):
    recipe = RECIPE.changed({"heads": ["intent", "slots"], "max_epochs": 1})
    run = train(SPEC, lambda _: network(), SPLIT, recipe, tmp_path, "rooms:network", tokenizers={"text": tokenizer})
    assert not run.prototypes.exists()
    assert set(run.record.metrics) == {"intent", "slots"}


def test_one_seed_gives_the_same_weights_bit_for_bit(run, tokenizer, tmp_path):
    again = train(SPEC, lambda _: network(), SPLIT, RECIPE, tmp_path, "rooms:network", tokenizers={"text": tokenizer})
    assert again.weights.read_bytes() == run.weights.read_bytes()
    assert again.prototypes.read_bytes() == run.prototypes.read_bytes()


def test_inspection_leaves_gradients_and_vectors_to_look_at(tokenizer, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = RECIPE.changed({"inspect": True, "max_epochs": 2, "heads": ["intent", "person", "sentence"]})
    run = train(SPEC, lambda _: network(), SPLIT, recipe, tmp_path, "rooms:network", tokenizers={"text": tokenizer})
    for entry in history.read(run.history):
        assert set(entry["gradients"]["norms"]) == {"intent", "person", "sentence"}
        assert set(entry["gradients"]["cosines"]) == {"intent|person", "intent|sentence", "person|sentence"}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()
    assert tags["graph"]
    assert {"gradient_norm/intent", "gradient_cosine/intent/person", "weight_norm/trunk/0"} <= set(tags["scalars"])
    projected = (tmp_path / "tensorboard" / "projector_config.pbtxt").read_text()
    assert "person" in projected
    assert "sentence" in projected


def test_looking_changes_nothing_that_is_learnt(tokenizer, tmp_path):
    runs = [
        train(
            *(SPEC, lambda _: network(), SPLIT, RECIPE.changed({"inspect": inspect, "max_epochs": 2})),
            *(tmp_path / str(inspect), "rooms:network"),
            tokenizers={"text": tokenizer},
        )
        for inspect in (False, True)
    ]
    assert runs[0].weights.read_bytes() == runs[1].weights.read_bytes()


def test_texts_without_a_tokenizer_are_refused(tmp_path):
    with pytest.raises(SpecError, match="tokenizers are given for no input"):
        train(SPEC, lambda _: network(), SPLIT, RECIPE, tmp_path / "rooms", "rooms:network")
    assert not (tmp_path / "rooms").exists()


def test_the_record_is_plain_json(run):
    record = json.loads((run.folder / "run.json").read_text())
    assert record["parameters"]["total"] == sum(record["parameters"]["heads"].values()) + record["parameters"]["trunk"]
    assert "NaN" not in (run.folder / "run.json").read_text() + run.history.read_text()
