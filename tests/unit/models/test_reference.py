import pytest

from polyhead.models import reference
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import SpecError
from polyhead.models.zoo import digits


def test_names_are_the_files_of_the_zoo_in_order():
    names = reference.names()
    assert "digits" in names
    assert list(names) == sorted(names)


@pytest.mark.parametrize("name", reference.names())
def test_every_name_loads_a_model_that_carries_it(name):
    model = reference.load(name)
    assert isinstance(model, ReferenceModel)
    assert model.spec.name == name
    assert set(model.recipe.loss_weights) <= set(model.spec.heads)


def test_load_gives_the_model_of_that_file():
    assert reference.load("digits") is digits.MODEL


@pytest.mark.parametrize("name", ["digit", "", "../digits", "digits.py", "Digits", "polyhead"])
def test_an_unknown_name_is_told_the_known_ones(name):
    with pytest.raises(SpecError) as caught:
        reference.load(name)
    assert str(caught.value) == f"no reference model {name!r} (there are: {', '.join(reference.names())})"
