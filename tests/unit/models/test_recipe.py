import re

import pytest
from pydantic import ValidationError

from polyhead.models.recipe import Recipe, RecipeError, Unfreezing
from polyhead.models.spec import SpecError

FULL = Recipe(
    seed=3,
    heads=("a", "b"),
    loss_weights={"a": 2.0, "é": 0.0},
    weighting="dwa",
    dwa_temperature=1.5,
    gradients="upgrad",
    sampling="proportional",
    sampling_temperature=2.0,
    unfreeze=Unfreezing(after_epochs=2, blocks_per_epoch=3),
    freeze=("trunk.embeddings",),
    trunk_learning_rate=1e-5,
    layer_decay=0.9,
    monitor="a/f1",
    gradient_clip=1.0,
    warmup=0.1,
    schedule="cosine",
)


# Reading and writing


@pytest.mark.parametrize("recipe", [Recipe(), FULL, Recipe(freeze_trunk=True)], ids=["default", "full", "frozen"])
def test_what_is_written_is_read_again(tmp_path, recipe):
    recipe.dump(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_the_file_names_every_key_so_that_later_defaults_change_nothing():
    text = Recipe().text()
    assert re.findall(r"^(\w+):", text, re.M) == list(Recipe.model_fields)
    assert "learning_rate: 0.003\n" in text


def test_a_file_says_what_it_changes_and_no_more(tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rate: 1e-3\nunfreeze: {blocks_per_epoch: 2}\n")
    assert Recipe.load(tmp_path / "recipe.yaml") == Recipe(
        learning_rate=1e-3, unfreeze=Unfreezing(after_epochs=1, blocks_per_epoch=2)
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sead: 1", "sead: is not a key that is known here: remove it, or check its spelling"),
        ("unfreeze: {after: 1}", "unfreeze.after: is not a key that is known here: remove it, or check its spelling"),
        ("gradients: upgard", "gradients: Input should be 'sum', "),
        ("gradients: upgard", "got 'upgard'"),
        ("learning_rate: 0", "learning_rate: Input should be greater than 0, got 0"),
        ("loss_weights: {a: -1}", "loss_weights.a: Input should be greater than or equal to 0, got -1"),
        ("monitor: a/b/c", "monitor: String should match pattern"),
        ("seed: 1\nseed: 2", "is not YAML: key 'seed' stands twice"),
        ("a: [", "is not YAML: "),
        ("- 1", "the top level: "),
    ],
)
def test_a_file_that_is_no_recipe_says_where_what_and_how(tmp_path, text, says):
    path = tmp_path / "recipe.yaml"
    path.write_text(text + "\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read \(.*No such file"):
        Recipe.load(tmp_path / "none.yaml")


def test_a_recipe_error_is_a_spec_error_which_the_command_line_catches():
    assert issubclass(RecipeError, SpecError)


# Changing


def test_changes_replace_keys_whole_and_leave_the_others():
    recipe = Recipe(seed=1, loss_weights={"a": 2.0, "b": 3.0})
    changed = recipe.changed({"loss_weights": {"a": 1.0}, "max_epochs": 7})
    assert changed == Recipe(seed=1, loss_weights={"a": 1.0}, max_epochs=7)
    assert recipe.loss_weights == {"a": 2.0, "b": 3.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sead": 1}, "mine.yaml: sead: is not a key"),
        (["seed"], "mine.yaml: a recipe is a mapping of keys, got ['seed']"),
        (None, "mine.yaml: a recipe is a mapping of keys, got None"),
        ({"freeze_trunk": True}, "mine.yaml: the top level: freeze_trunk freezes the trunk for good"),
    ],
)
def test_changes_are_checked_as_a_recipe_is(changes, says):
    with pytest.raises(RecipeError) as caught:
        Recipe(layer_decay=0.9).changed(changes, "mine.yaml")
    assert str(caught.value).startswith(says)


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().seed = 1


# Bounds and impossible combinations


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("max_epochs", 0, "greater than or equal to 1"),
        ("batch_size", 1, "greater than or equal to 2"),
        ("learning_rate", 0.0, "greater than 0"),
        ("learning_rate", -0.1, "greater than 0"),
        ("trunk_learning_rate", 0.0, "greater than 0"),
        ("weight_decay", -1e-9, "greater than or equal to 0"),
        ("patience", 0, "greater than or equal to 1"),
        ("warmup", 1.0, "less than 1"),
        ("label_smoothing", 1.0, "less than 1"),
        ("layer_decay", 0.0, "greater than 0"),
        ("layer_decay", 1.1, "less than or equal to 1"),
        ("gradient_clip", 0.0, "greater than 0"),
        ("sampling_temperature", 0.5, "greater than or equal to 1"),
    ],
)
def test_a_recipe_has_bounds(key, value, least):
    with pytest.raises(ValidationError) as caught:
        Recipe(**{key: value})
    (fault,) = caught.value.errors()
    assert (fault["loc"], fault["msg"], fault["input"]) == ((key,), f"Input should be {least}", value)


def test_a_recipe_may_stand_on_its_bounds():
    bounds = {"seed": 0, "max_epochs": 1, "batch_size": 2, "learning_rate": 1e-12, "weight_decay": 0.0, "patience": 1}
    assert {key: value for key, value in Recipe(**bounds).model_dump().items() if key in bounds} == bounds


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"freeze_trunk": True, "unfreeze": {}}, "freeze_trunk freezes the trunk for good, so unfreeze says nothing"),
        ({"freeze_trunk": True, "trunk_learning_rate": 1e-5}, "so trunk_learning_rate says nothing: remove one"),
        ({"freeze_trunk": True, "layer_decay": 0.9}, "so layer_decay says nothing: remove one"),
        ({"dwa_temperature": 1.0}, "dwa_temperature is of weighting: dwa, got weighting: fixed: remove it"),
        (
            {"sampling": "balanced", "sampling_temperature": 2.0},
            "sampling_temperature is of sampling: proportional, got sampling: balanced: remove it",
        ),
        ({"heads": ["a", "a"]}, "heads names a head twice: a, a"),
        ({"heads": ["a"], "monitor": "b/f1"}, "monitor 'b/f1' is of a head that is not trained (a)"),
    ],
)
def test_impossible_combinations_are_refused(changes, says):
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(changes)
    assert says in str(caught.value)


# What follows from it


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("loss", "min"), ("a/loss", "min"), ("a/mae", "min"), ("a/r2", "max"), ("a/span_f1", "max"), ("mae/f1", "max")],
)
def test_the_metric_says_whether_less_is_better(monitor, mode):
    assert Recipe(monitor=monitor).mode == mode


@pytest.mark.parametrize(
    ("unfreezing", "learning"),
    [
        (Unfreezing(), [0, 1, 2, 3, 3]),
        (Unfreezing(after_epochs=0), [1, 2, 3, 3, 3]),
        (Unfreezing(after_epochs=2, blocks_per_epoch=2), [0, 0, 2, 3, 3]),
    ],
)
def test_blocks_unfreeze_from_the_top_epoch_by_epoch(unfreezing, learning):
    assert [unfreezing.learning(epoch, 3) for epoch in range(5)] == learning
