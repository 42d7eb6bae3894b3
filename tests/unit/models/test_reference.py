import dataclasses
from pathlib import Path

import pytest

from polyhead.models import reference
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import SpecError
from polyhead.models.zoo import digits


def test_names_are_the_models_of_the_zoo_in_order():
    names = reference.names()
    assert "digits" in names
    assert list(names) == sorted(names)


def test_packages_and_modules_without_a_model_do_not_count():
    folder = Path(reference.zoo.__path__[0])
    models = {path.stem for path in folder.glob("*.py") if "\nMODEL" in path.read_text()}
    assert set(reference.names()) == models
    assert "data" not in models


@pytest.mark.parametrize("name", reference.names())
def test_every_name_loads_a_model_that_carries_it(name):
    model = reference.load(name)
    assert isinstance(model, ReferenceModel)
    assert model.spec.name == name
    assert set(model.recipe.loss_weights) <= set(model.spec.heads)
    assert model.factory.partition(":")[0] == f"polyhead.models.zoo.{name}"


def test_load_gives_the_model_of_that_file():
    assert reference.load("digits") is digits.MODEL


@pytest.mark.parametrize("name", ["digit", "", "../digits", "digits.py", "Digits", "polyhead", "data"])
def test_an_unknown_name_is_told_the_known_ones(name):
    with pytest.raises(SpecError) as caught:
        reference.load(name)
    assert str(caught.value) == (
        f"no reference model {name!r} (there are: {', '.join(reference.names())}): "
        "give one of them, or path/to/file.py:MODEL for a model of your own"
    )


# A user's own

OWN = """
import dataclasses
from polyhead.models.zoo import digits

MODEL = dataclasses.replace(digits.MODEL, factory={factory!r})
OTHER = 5
"""


def test_a_model_of_the_users_own_is_loaded_from_package_and_file(tmp_path):
    assert reference.load("polyhead.models.zoo.digits:MODEL") is digits.MODEL
    (tmp_path / "own_one.py").write_text(OWN.format(factory=digits.MODEL.factory))
    assert reference.load(f"{tmp_path / 'own_one.py'}:MODEL") == digits.MODEL


@pytest.mark.parametrize("relative", [True, False], ids=["relative", "absolute"])
def test_a_factory_in_a_file_is_looked_for_beside_the_models_own(tmp_path, monkeypatch, relative):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "own_two.py").write_text(OWN.format(factory="net.py:build"))
    monkeypatch.chdir(tmp_path)
    name = "models/own_two.py:MODEL" if relative else f"{folder / 'own_two.py'}:MODEL"
    assert reference.load(name) == dataclasses.replace(digits.MODEL, factory=f"{folder / 'net.py'}:build")


def test_something_else_than_a_model_is_refused(tmp_path):
    (tmp_path / "own_three.py").write_text(OWN.format(factory="a:b"))
    with pytest.raises(SpecError, match=r"own_three.py:OTHER' is of type int: make it a .*ReferenceModel$"):
        reference.load(f"{tmp_path / 'own_three.py'}:OTHER")
