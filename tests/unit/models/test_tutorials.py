"""The networks that everybody starts from, as published: they train and export unchanged."""

import ast
import json

import numpy as np
import pytest
import torch

from polyhead.models.data import Rows, Split
from polyhead.models.importing import imported
from polyhead.models.learning import history
from polyhead.models.recipe import Recipe
from polyhead.models.spec import ClassificationHead, ModelSpec
from polyhead.models.training import train
from tests.command import ROOT, run_polyhead

TUTORIALS = ROOT / "examples" / "tutorials"
NAMES = ("flattened", "module_dict", "shared_and_list")


def rows(spec, count, seed):
    random = np.random.default_rng(seed)
    ((name, value),) = spec.inputs.items()
    targets = {
        head: random.integers(0, len(kind.labels), count)
        if isinstance(kind, ClassificationHead)
        else random.normal(size=(count, 1)).astype(np.float32)
        for head, kind in spec.heads.items()
    }
    return Rows({name: random.normal(size=(count, *value.shape)).astype(np.float32)}, targets)


def test_each_tutorial_has_its_spec_and_knows_nothing_of_polyhead():
    assert (
        {path.stem for path in TUTORIALS.glob("*.py")} == {path.stem for path in TUTORIALS.glob("*.yaml")} == set(NAMES)
    )
    for name in NAMES:
        tree = ast.parse((TUTORIALS / f"{name}.py").read_text())
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert {module.partition(".")[0] for module in modules} == {"torch"}


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradients": "pcgrad", "weighting": "uncertainty", "inspect": True}],
    ids=["plain", "conflicts and uncertainty"],
)
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_exports_unchanged(tmp_path, name, changes):
    factory = f"{TUTORIALS / name}.py:build"
    spec = ModelSpec.load(TUTORIALS / f"{name}.yaml")
    split = Split(*(rows(spec, count, seed) for seed, count in enumerate((64, 32, 32))))
    recipe = Recipe(max_epochs=2, batch_size=16).changed(changes)
    built = []

    def build(_rows):
        built.append(imported(factory, "factory")())
        return built[0]

    run = train(spec, build, split, recipe, tmp_path / "run", factory)
    assert set(run.record.metrics) == set(spec.heads)
    learnt = {n for n, p in built[0].named_parameters() if not torch.equal(p, dict(untrained(factory))[n])}
    assert learnt == {n for n, _ in built[0].named_parameters()}
    if recipe.inspect:
        pairs = len(spec.heads) * (len(spec.heads) - 1) // 2
        assert [len(entry["gradients"]["cosines"]) for entry in history.read(run.history)] == [pairs, pairs]

    if not changes:
        run_polyhead("export", run.folder, "--out", tmp_path / "bundle")
        parity = json.loads((tmp_path / "bundle" / "parity.json").read_text())
        assert {head for graph in parity for head in graph["heads"]} == set(spec.heads)


def untrained(factory):
    torch.manual_seed(0)
    return imported(factory, "factory")().named_parameters()
