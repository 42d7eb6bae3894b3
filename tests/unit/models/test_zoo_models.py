"""The reference models whose training takes long: their networks, specs and augmentation, and a short training."""

from __future__ import annotations

import io

import numpy as np
import orjson
import pytest
import torch
from PIL import Image

from polyhead.export.assemble import export
from polyhead.export.source import from_run
from polyhead.models.arrays import array_specs
from polyhead.models.reference import load, names
from polyhead.models.zoo import scenes, smarthome
from polyhead.serving.engine import Engine
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from tests.command import run_polyhead


def test_the_zoo():
    assert names() == ("digits", "digits_oneshot", "scenes", "smarthome")


@pytest.mark.parametrize("name", ["digits", "digits_oneshot", "scenes", "smarthome"])
def test_targets_heads_and_network_agree(name):
    model = load(name)
    part = model.split(0).validation
    assert set(part.inputs) == set(model.spec.inputs)
    assert set(part.targets) == set(model.spec.heads)
    network = model.build(part)
    assert set(network.heads) == set(model.spec.heads)


def test_the_pretrained_trunk_starts_from_its_weights_and_its_words_stay():
    network = smarthome.network()
    assert sum(p.numel() for p in network.trunk.parameters()) > 22_000_000
    again = smarthome.network()
    assert torch.equal(network.trunk.embeddings.word_embeddings.weight, again.trunk.embeddings.word_embeddings.weight)
    assert smarthome.MODEL.recipe.freeze == ("trunk.embeddings.word_embeddings",)
    assert list(array_specs(smarthome.SPEC)) == ["input_ids", "attention_mask"]


def test_hidden_words_are_the_tokenizers_mask_token():
    from polyhead.models.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(smarthome.tokenizers()["text"], smarthome.SPEC.inputs["text"])
    assert [tokenizer.token_id(token) for token in ("[MASK]", "[CLS]", "[SEP]")] == [103, 101, 102]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One epoch of scenes, exported."""
    folder = tmp_path_factory.mktemp("scenes")
    run_polyhead("train", "scenes", "--out", folder / "run", "--epochs", 1)
    bundle, _ = export(from_run(folder / "run"), folder / "bundle")
    return Responder(Engine.load(bundle, device="cpu"), Settings())


def test_masks_of_a_trained_trunk_are_answered_as_runs_and_as_a_picture(served):
    picture = scenes.split(0).test.inputs["image"][0]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    (one,) = served.respond([HttpRequest(file.getvalue(), "image/png")])
    answer = orjson.loads(one.body)
    assert set(answer) == {"region", "backdrop", "present", "count"}
    assert answer["region"]["size"] == [48, 48]
    assert sum(count for _, count in answer["region"]["runs"]) == 48 * 48
    assert sum(answer["region"]["areas"]) == pytest.approx(1)
    body = {"instances": [picture.tolist()], "heads": ["region"], "options": {"mask": "png", "raw": True}}
    (many,) = served.respond([HttpRequest(orjson.dumps(body), "application/json")])
    region = orjson.loads(many.body)["predictions"][0]["region"]
    import base64

    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(region["png"]))))
    flat = np.repeat(*np.array(answer["region"]["runs"]).T)
    assert np.array_equal(mask.reshape(-1), flat)
    assert np.array_equal(np.asarray(region["raw"]).argmax(axis=0), mask)
