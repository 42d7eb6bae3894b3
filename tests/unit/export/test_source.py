"""Networks of the user's own: found, loaded strictly, or refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file, save_model
from torch import nn

from polyhead.export import source
from polyhead.export.errors import ExportError
from polyhead.models.spec import ModelSpec, SpecError, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.prototypes import Prototypes
from tests.unit.serving.wordpiece import tokenizer_json

NET = """
import torch
from torch import nn
{extra}

def build():
    return {value}
"""


def write(folder: Path, value: str = "nn.Linear(2, 3)", extra: str = "") -> str:
    (folder / "net.py").write_text(NET.format(value=value, extra=extra))
    return f"{folder / 'net.py'}:build"


def test_a_factory_in_a_file_is_called(tmp_path):
    network = source.build(write(tmp_path))
    assert isinstance(network, nn.Linear)
    assert not network.training


def test_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_net.py").write_text("WIDTH = 5\n")
    network = source.build(write(tmp_path, "nn.Linear(2, WIDTH)", "from neighbour_of_net import WIDTH"))
    assert network.out_features == 5


def test_a_factory_in_a_module_of_the_users_own_folder_is_called(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    write(tmp_path / "my_package")
    monkeypatch.chdir(tmp_path)
    assert isinstance(source.build("my_package.net:build"), nn.Linear)
    assert str(tmp_path) not in sys.path


def test_a_factory_file_that_does_not_import_is_explained(tmp_path):
    with pytest.raises(
        ExportError, match=r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_thing'\)"
    ):
        source.build(write(tmp_path, extra="import no_such_thing"))


def test_a_factory_in_a_module_is_called():
    assert sum(p.numel() for p in source.build("polyhead.models.zoo.digits:network").parameters()) > 1000


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("net", "write package.module:function or path/to/file.py:function"),
        ("no.such.module:build", r"cannot be imported \(ModuleNotFoundError"),
        ("/nowhere/net.py:build", "is not there"),
        ("json:build", "has no function 'build'"),
        ("json:loads", r"failed \(TypeError: .*must take nothing and return the network"),
    ],
)
def test_a_factory_that_cannot_be_used_is_explained(factory, message):
    with pytest.raises(ExportError, match=message):
        source.build(factory)


def test_a_factory_must_return_a_module(tmp_path):
    with pytest.raises(ExportError, match=r"returned list: return a torch\.nn\.Module"):
        source.build(write(tmp_path, "[1]"))


def test_weights_are_loaded(tmp_path):
    trained = nn.Linear(2, 3)
    save_model(trained, tmp_path / "w.safetensors")
    loaded = source.load_weights(nn.Linear(2, 3), tmp_path / "w.safetensors")
    assert torch.equal(loaded.weight, trained.weight)


def test_tied_weights_are_loaded(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.b = nn.Linear(2, 2)
            self.b.weight = self.a.weight

    trained = Tied()
    save_model(trained, tmp_path / "w.safetensors")
    loaded = source.load_weights(Tied(), tmp_path / "w.safetensors")
    assert torch.equal(loaded.b.weight, trained.a.weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, "lack 1 entries, the first is 'bias'"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": torch.zeros(1)},
            "have, and the network has not, 1 entries, the first is 'more'",
        ),
        ({"weight": torch.zeros(4, 2), "bias": torch.zeros(3)}, "do not fit the network"),
    ],
)
def test_weights_that_do_not_fit_are_explained(tmp_path, state, message):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match=message):
        source.load_weights(nn.Linear(2, 3), tmp_path / "w.safetensors")


def test_a_pickle_is_never_loaded(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match="are no safetensors file"):
        source.load_weights(nn.Linear(2, 3), tmp_path / "w.safetensors")
    with pytest.raises(ExportError, match="no such file"):
        source.load_weights(nn.Linear(2, 3), tmp_path / "nothing.safetensors")


# --- texts ----------------------------------------------------------------------------------------------------------

TEXT = ModelSpec.parse(
    {
        "name": "m",
        "version": "1",
        "inputs": {
            "text": {"kind": "text", "tokenizer": "parts/tokenizer.json", "max_length": 12},
            "x": {"kind": "tensor", "shape": [2]},
        },
        "heads": {"y": {"kind": "regression"}, "who": {"kind": "oneshot", "dim": 2, "labels": ["a", "b", "c"]}},
    }
)
TEXTS = ["turn on", "", "Zoë’s café 👩‍👩‍👧"]


def tokenizers(special: bool = True, **spec: object) -> dict[str, Tokenizer]:
    declared = TEXT.inputs["text"].model_copy(update=spec)
    assert isinstance(declared, TextInput)
    return {"text": Tokenizer(tokenizer_json(special=special), declared)}


def test_samples_become_what_the_graph_takes():
    numbers = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = source.Source(nn.Linear(1, 1), TEXT, {"text": TEXTS, "x": numbers}, tokenizers=tokenizers())
    arrays = made.arrays()
    assert list(arrays) == ["input_ids", "attention_mask", "x"]
    assert arrays["input_ids"].shape == (3, 8)
    np.testing.assert_array_equal(arrays["attention_mask"].sum(axis=1), [4, 2, 7])
    np.testing.assert_array_equal(arrays["x"], numbers)
    assert made.texts == {"text": TEXTS}


def test_a_text_that_is_too_long_is_named_by_its_row():
    made = source.Source(nn.Linear(1, 1), TEXT, {"text": ["on", "on", "on " * 11]}, tokenizers=tokenizers())
    with pytest.raises(ExportError, match=r"^samples: row 2: input 'text': the text has 13 tokens, the model takes 12"):
        made.arrays()


def test_a_tokenizer_stands_beside_the_spec(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "tokenizer.json").write_bytes(tokenizer_json())
    found = source.load_tokenizers(TEXT, tmp_path)
    assert found["text"].data == tokenizer_json()
    (tmp_path / "parts" / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match=r"parts/tokenizer\.json cannot be read \(No such file or directory\)"):
        source.load_tokenizers(TEXT, tmp_path)


def test_classes_enrolled_in_training_come_along(tmp_path):
    vectors = np.array([[1, 2], [0, 0], [5, 6]], np.float32)
    counts = np.array([4.0, 0.0, 1.0], np.float32)
    save_arrays({"who": vectors, "who.examples": counts}, tmp_path / "p.safetensors")
    (found,) = source.load_prototypes(tmp_path / "p.safetensors", TEXT).values()
    assert isinstance(found, Prototypes)
    assert found.labels == ("a", "c")  # nobody has seen b
    np.testing.assert_array_equal(found.vectors, vectors[[0, 2]])
    np.testing.assert_array_equal(found.examples, [4, 1])
    assert Prototypes.load(found.dump(), 2).labels == ("a", "c")
    assert source.load_prototypes(tmp_path / "none.safetensors", TEXT) == {}
