import json

import pytest
from pydantic import ValidationError

from polyhead.models.recipe import Recipe
from polyhead.models.run import Parameters, Run, RunError, RunRecord
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
    data="5" * 64,
    epochs=3,
    best_epoch=2,
    monitor="h/mae",
    score=0.25,
    seconds=1.5,
    parameters=Parameters(total=100, trunk=80, heads={"h": 20}, trainable=20),
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
    assert opened.predictions == run.folder / "predictions.safetensors"
    assert opened.prototypes == run.folder / "prototypes.safetensors"
    assert opened.history == run.folder / "history.json"


def test_the_recipe_stands_beside_the_record_for_the_next_run(run):
    assert Recipe.load(run.folder / "recipe.yaml") == RECORD.recipe


def test_the_record_is_json_that_a_person_can_read(run):
    text = (run.folder / "run.json").read_text()
    assert json.loads(text) == RECORD.model_dump(mode="json")
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
    return json.dumps({k: v for k, v in RECORD.model_dump(mode="json").items() if k != key})


def having(**changes):
    return json.dumps({**RECORD.model_dump(mode="json"), **changes})


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("[]", "the top level", "got []"),
        (without("factory"), "factory", "is missing"),
        (having(format=1), "format", "got 1"),
        (having(epochs="many"), "epochs", "got 'many'"),
        (having(metrics={"h": {"mae": "low"}}), "metrics.h.mae", "got 'low'"),
        (having(parameters={"total": 1}), "parameters.trunk", "is missing"),
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


def test_bounds_hold_in_a_record(run):
    path = run.folder / "run.json"
    path.write_text(having(recipe={"batch_size": 1}))
    assert fault_of(run.folder) == f"{path}: recipe.batch_size: Input should be greater than or equal to 2, got 1"
