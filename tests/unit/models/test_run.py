import json

import pytest
from pydantic import ValidationError

from polyhead.models.run import Recipe, Run, RunRecord
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
    return run


def fault_of(folder):
    with pytest.raises(SpecError) as caught:
        Run.open(folder)
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
        ("", "the top level", "Invalid JSON"),
        (RECORD.model_dump_json()[:-9], "the top level", "Invalid JSON"),
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


def test_a_run_without_its_spec_is_refused(run):
    path = run.folder / "spec.yaml"
    path.unlink()
    assert fault_of(run.folder).startswith(f"{path}: cannot be read (")


def test_a_run_with_a_damaged_spec_is_refused(run):
    path = run.folder / "spec.yaml"
    path.write_text("name: toy\n")
    assert fault_of(run.folder) == f"{path}: version: is missing (and 2 more)"


def test_recipe_and_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RECORD.epochs = 4
    with pytest.raises(ValidationError, match="frozen"):
        RECORD.recipe.seed = 1


def test_a_recipe_refuses_keys_it_does_not_know():
    with pytest.raises(ValidationError, match="sead"):
        Recipe(sead=1)
