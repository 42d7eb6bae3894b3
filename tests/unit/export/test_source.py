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
from polyhead.models.spec import ModelSpec

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


SPEC = ModelSpec.parse(
    {
        "name": "m",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [2]}, "i": {"kind": "image", "size": [4, 5], "channels": "gray"}},
        "heads": {"y": {"kind": "regression"}},
    }
)


def test_random_samples_are_seeded_and_of_the_specs_shapes():
    samples = source.random_samples(SPEC)
    assert samples["x"].shape == (64, 2)
    assert samples["x"].dtype == np.float32
    assert samples["i"].shape == (64, 4, 5, 1)
    assert samples["i"].dtype == np.uint8
    assert samples["i"].max() > 200
    np.testing.assert_array_equal(samples["x"], source.random_samples(SPEC)["x"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 2), np.float32)}, "the spec's inputs are"),
        ({"x": np.zeros((4, 3), np.float32), "i": np.zeros((4, 4, 5, 1), np.uint8)}, r"wanted float32\[rows, 2\]"),
        ({"x": np.zeros((4, 2), np.float64), "i": np.zeros((4, 4, 5, 1), np.uint8)}, "is float64"),
        ({"x": np.zeros((1, 2), np.float32), "i": np.zeros((1, 4, 5, 1), np.uint8)}, "two rows or more"),
    ],
)
def test_samples_that_do_not_fit_are_explained(tmp_path, arrays, message):
    save_arrays(arrays, tmp_path / "s.safetensors")
    with pytest.raises(ExportError, match=message):
        source.load_samples(tmp_path / "s.safetensors", SPEC)
