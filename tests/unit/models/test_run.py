import json

import pytest
from pydantic import ValidationError

from polyhead.models.run import Recipe, Run, RunError, RunRecord
from polyhead.models.spec import ModelSpec, SpecError

SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1.0",
        "inputs": {"x": {"kind": "tensor", "shape": [4]}},
        "heads": {"h": {"kind": "regression", "unit": "m"}},
    }
)
RECORD = RunRecord(
    factory="package.module:function",
    recipe=Recipe(seed=7, learning_rate=0.01, loss_weights={"h": 2.0}),
    epochs=3,
    seconds=1.5,
    metrics={"h": {"mae": 0.25, "r2": 0.5}},
    versions={"torch": "2.10.0"},
)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "toy", RECORD, SPEC)
    run.folder.mkdir()
    run.write()
    run.weights.touch()
    run.samples.touch()
    return run


def fault_of(folder, error=RunError):
    with pytest.raises(error) as caught:
        Run.open(folder)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_opened_again(run):
    opened = Run.open(run.folder)
    assert (opened.folder, opened.record, opened.spec) == (run.folder, RECORD, SPEC)
    assert opened.weights == run.folder / "weights.safetensors"
    assert opened.samples == run.folder / "samples.safetensors"


def test_the_record_is_json_that_a_person_can_read(run):
    text = (run.folder / "run.json").read_text()
    assert json.loads(text) == RECORD.model_dump()
    assert '\n  "epochs": 3,\n' in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("make", [lambda folder: folder.mkdir(), lambda folder: None], ids=["empty", "missing"])
def test_a_folder_that_is_no_run_says_how_to_make_one(tmp_path, make):
    folder = tmp_path / "digits"
    make(folder)
    assert fault_of(folder) == (
        f"{folder}: is no finished training run (it has no run.json): polyhead train NAME --out {folder}"
    )


def without(key):
    return json.dumps({k: v for k, v in RECORD.model_dump().items() if k != key})


def having(**changes):
    return json.dumps({**RECORD.model_dump(), **changes})


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("[]", "the top level", "got []"),
        (without("factory"), "factory", "is missing"),
        (having(format=2), "format", "got 2"),
        (having(epochs="many"), "epochs", "got 'many'"),
        (having(metrics={"h": {"mae": "low"}}), "metrics.h.mae", "got 'low'"),
        (having(extra=1), "extra", "is not a key that is known here"),
        (having(recipe={"sead": 1}), "recipe.sead", "is not a key that is known here"),
    ],
)
def test_a_damaged_record_is_refused_with_its_place(run, text, place, says):
    path = run.folder / "run.json"
    path.write_text(text)
    fault = fault_of(run.folder)
    assert fault.startswith(f"{path}: {place}: ")
    assert says in fault


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'{"format": 1', "Expecting ',' delimiter: line 1 column 13 (char 12)"),
        (b"{} {}", "Extra data: line 1 column 4 (char 3)"),
        (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff in position 7: invalid start byte"),
    ],
    ids=["empty", "cut off", "two values", "no UTF-8"],
)
def test_a_record_that_is_no_json_is_refused(run, data, reason):
    path = run.folder / "run.json"
    path.write_bytes(data)
    assert fault_of(run.folder) == f"{path}: is not JSON ({reason}): train again"


@pytest.mark.parametrize("name", ["weights.safetensors", "samples.safetensors"])
def test_a_run_without_its_weights_or_samples_is_refused(run, name):
    (run.folder / name).unlink()
    assert fault_of(run.folder) == f"{run.folder}: {name} is missing: train again"


def test_a_folder_in_place_of_the_record_is_no_run(run):
    path = run.folder / "run.json"
    path.unlink()
    path.mkdir()
    assert "is no finished training run (it has no run.json)" in fault_of(run.folder)


def test_a_run_without_its_spec_is_refused(run):
    path = run.folder / "spec.yaml"
    path.unlink()
    assert fault_of(run.folder, SpecError).startswith(f"{path}: cannot be read (")


def test_a_run_with_a_damaged_spec_is_refused(run):
    path = run.folder / "spec.yaml"
    path.write_text("name: toy\n")
    assert fault_of(run.folder, SpecError) == f"{path}: version: is missing (and 2 more)"


def test_recipe_and_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RECORD.epochs = 4
    with pytest.raises(ValidationError, match="frozen"):
        RECORD.recipe.seed = 1


def test_a_recipe_refuses_keys_it_does_not_know():
    with pytest.raises(ValidationError, match="sead"):
        Recipe(sead=1)


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("max_epochs", 0, "greater than or equal to 1"),
        ("batch_size", 1, "greater than or equal to 2"),
        ("learning_rate", 0.0, "greater than 0"),
        ("learning_rate", -0.1, "greater than 0"),
        ("weight_decay", -1e-9, "greater than or equal to 0"),
        ("patience", 0, "greater than or equal to 1"),
    ],
)
def test_a_recipe_has_bounds(key, value, least):
    with pytest.raises(ValidationError) as caught:
        Recipe(**{key: value})
    (fault,) = caught.value.errors()
    assert (fault["loc"], fault["msg"], fault["input"]) == ((key,), f"Input should be {least}", value)


def test_a_recipe_may_stand_on_its_bounds():
    bounds = {"seed": 0, "max_epochs": 1, "batch_size": 2, "learning_rate": 1e-12, "weight_decay": 0.0, "patience": 1}
    assert Recipe(**bounds).model_dump() == {**bounds, "loss_weights": {}}


def test_bounds_hold_in_a_record(run):
    path = run.folder / "run.json"
    path.write_text(having(recipe={"batch_size": 1}))
    assert fault_of(run.folder) == f"{path}: recipe.batch_size: Input should be greater than or equal to 2, got 1"
