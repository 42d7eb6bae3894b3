"""`polyhead train`: models of the user's own, recipes in files, resuming, and what is said."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from polyhead.models.recipe import Recipe
from polyhead.models.run import Run
from tests.command import run_polyhead
from tests.unit.models import own_model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where a user stands, with a model in a file."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(own_model.__file__, folder / "toy.py")
    (folder / "recipe.yaml").write_text("max_epochs: 2\ngradients: sum\nweighting: uncertainty\n")
    return folder


@pytest.fixture(scope="module")
def result(home):
    return run_polyhead("train", "toy.py:MODEL", "--out", "run", "--recipe", "recipe.yaml", "--seed", 3, cwd=home)


def test_a_model_in_a_file_is_trained_by_its_recipe_and_the_users(home, result):
    run = Run.open(home / "run")
    expected = own_model.MODEL.recipe.changed(
        {"max_epochs": 2, "gradients": "sum", "weighting": "uncertainty", "seed": 3}
    )
    assert run.record.recipe == expected
    assert run.record.epochs == 2
    assert set(run.record.metrics) == {"sign", "far"}
    assert Recipe.load(home / "run" / "recipe.yaml") == expected


def test_the_whole_recipe_is_printed_and_can_be_given_back(home, result):
    lines = result.stderr.splitlines()
    start = lines.index("seed: 3")
    end = next(i for i, line in enumerate(lines) if line.startswith("training toy.py:MODEL: "))
    assert Recipe.parse(yaml.safe_load("\n".join(lines[start:end]))) == Run.open(home / "run").record.recipe


def test_the_table_names_each_head_and_the_next_step(result):
    assert "toy: 2 epochs in" in result.stdout
    assert "best: epoch" in result.stdout
    assert "accuracy" in result.stdout
    assert "mae" in result.stdout
    assert result.stderr.splitlines()[-1].endswith("next: polyhead export run --out bundles/toy")


def test_the_run_of_a_users_model_is_exported_like_any_other(home, result):
    run_polyhead("export", "run", "--out", "bundle", cwd=home)
    assert (home / "bundle" / "manifest.json").is_file()


def test_resuming_a_finished_run_says_so_in_json_too(home, result):
    again = run_polyhead(
        *("train", "toy.py:MODEL", "--out", "run", "--recipe", "recipe.yaml", "--seed", 3, "--resume", "--json"),
        cwd=home,
    )
    assert "run: the run is finished already, there is nothing to resume" in again.stderr
    document = json.loads(again.stdout)
    assert document["run"] == "run"
    assert document["best_epoch"] in (1, 2)
    assert set(document["parameters"]) == {"total", "trunk", "heads", "trainable"}


def test_heads_and_inspection_can_be_asked_for(home):
    run_polyhead("train", "toy.py:MODEL", "--out", "one", "--heads", "far", "--epochs", 1, "--tensorboard", cwd=home)
    record = Run.open(home / "one").record
    assert record.recipe.heads == ("far",)
    assert record.recipe.inspect
    assert set(record.metrics) == {"far"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy.py:MODEL", "--recipe", "bad.yaml"], "polyhead: bad.yaml: sead: is not a key that is known here"),
        (
            ["toy.py:MODEL", "--heads", "near"],
            "polyhead: heads: 'near' is no head with targets in the data (there are: ",
        ),
        (["gone.py:MODEL"], "polyhead: model 'gone.py:MODEL': the file gone.py is not there"),
        (
            ["toy.py:MODEL", "--out", "run", "--resume"],
            "polyhead: run: --resume goes on with the same recipe and data alone, but seed was 3, is 0; ",
        ),
    ],
)
def test_what_cannot_be_trained_is_status_1_and_one_line(home, result, arguments, message):
    (home / "bad.yaml").write_text("sead: 1\n")
    out = [] if "--out" in arguments else ["--out", "failed"]
    failed = run_polyhead("train", *arguments, *out, expect=1, cwd=home)
    assert failed.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in failed.stderr
    assert not (home / "failed").exists()
