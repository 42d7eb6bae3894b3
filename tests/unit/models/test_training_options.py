"""What a recipe's keys do to a run: each seen in the weights, the history or the record."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from polyhead.models.data import Rows, Split
from polyhead.models.heads import Regression, build_head
from polyhead.models.learning import history
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe, RecipeError
from polyhead.models.run import Run, RunError
from polyhead.models.spec import ModelSpec, SpecError
from polyhead.models.training import train
from polyhead.models.trunks.mlp import MLP

SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1.0",
        "inputs": {"x": {"kind": "tensor", "shape": [4]}},
        "heads": {
            "sign": {"kind": "classification", "labels": ["minus", "plus"]},
            "far": {"kind": "regression", "unit": "m"},
        },
    }
)
RECIPE = Recipe(max_epochs=4, batch_size=32, learning_rate=1e-2)


def rows(count, seed):
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return Rows({"x": x}, {"sign": (x[:, 0] > 0).astype(np.int64), "far": x.sum(axis=1, keepdims=True)})


SPLIT = Split(rows(128, 0), rows(64, 1), rows(64, 2))


def network(_rows=None):
    trunk = MLP(4, (16, 16))
    trunk.layers.append(nn.BatchNorm1d(16))
    return MultiTaskNetwork(trunk, {"sign": build_head(SPEC.heads["sign"], 16), "far": Regression(16)})


def trained(out, build=network, split=SPLIT, **changes):
    return train(SPEC, build, split, RECIPE.changed(changes), out, "toys:network")


def moved(run):
    """The parts whose weights are not those of the start."""
    torch.manual_seed(run.record.recipe.seed)
    first, last = network().state_dict(), load_file(run.weights)
    names = {name for name in first if not torch.equal(first[name], last[name])}
    return {name.rpartition(".")[0] for name in names}


ALL = {"trunk.layers.1", "trunk.layers.3", "trunk.layers.5", "heads.sign.linear", "heads.far.layers.0"}


def test_everything_moves_by_default(tmp_path):
    assert moved(trained(tmp_path)) == ALL


def test_a_frozen_trunk_does_not_move_nor_its_running_statistics(tmp_path):
    run = trained(tmp_path, freeze_trunk=True)
    assert moved(run) == {"heads.sign.linear", "heads.far.layers.0"}
    parameters = run.record.parameters
    assert parameters.trainable == sum(parameters.heads.values()) < parameters.total
    assert {entry["trainable"] for entry in history.read(run.history)} == {parameters.trainable}
    assert [*history.read(run.history)[0]["learning_rates"]] == ["heads"]


def test_a_trunk_that_unfreezes_moves_from_the_top(tmp_path):
    first = trained(tmp_path / "1", unfreeze={"after_epochs": 1}, max_epochs=1)
    second = trained(tmp_path / "2", unfreeze={"after_epochs": 1}, max_epochs=2)
    assert moved(first) == {"heads.sign.linear", "heads.far.layers.0"}
    assert moved(second) == {"heads.sign.linear", "heads.far.layers.0", "trunk.layers.3", "trunk.layers.5"}
    run = trained(tmp_path / "4", unfreeze={"after_epochs": 1})
    assert moved(run) == ALL
    counts = [entry["trainable"] for entry in history.read(run.history)]
    assert counts[0] < counts[1] < counts[2] == counts[3] == run.record.parameters.trainable


def test_parameters_can_be_frozen_by_name(tmp_path):
    assert moved(trained(tmp_path, freeze=["trunk.layers.1"])) == ALL - {"trunk.layers.1"}


def test_rates_fall_with_depth_and_follow_the_schedule(tmp_path):
    run = trained(tmp_path, layer_decay=0.5, trunk_learning_rate=1e-3, schedule="linear")
    entries = history.read(run.history)
    for entry in entries:
        rates = entry["learning_rates"]
        assert rates["trunk.0"] == pytest.approx(rates["trunk.1"] / 2)
        assert rates["heads"] == pytest.approx(10 * rates["trunk.1"])
    heads = [entry["learning_rates"]["heads"] for entry in entries]
    assert heads == pytest.approx([1e-2 * share for share in (0.75, 0.5, 0.25, 0.0)], abs=1e-9)


def test_heads_that_are_not_named_are_not_trained_and_not_measured(tmp_path):
    run = trained(tmp_path, heads=["far"])
    assert moved(run) == ALL - {"heads.sign.linear"}
    assert set(run.record.metrics) == {"far"}
    entry = history.read(run.history)[0]
    assert set(entry["train"]) == set(entry["validation"]) == set(entry["weights"]) == {"far"}
    parameters = run.record.parameters
    assert parameters.trainable == parameters.total - parameters.heads["sign"]


# Weighting and conflicts


def test_uncertainty_learns_weights(tmp_path):
    weights = [entry["weights"] for entry in history.read(trained(tmp_path, weighting="uncertainty").history)]
    assert set(weights[0]) == {"sign", "far"}
    assert weights[-1] != weights[0]
    assert "weighting" in history.read(tmp_path / "history.json")[0]["learning_rates"]


def test_dynamic_weights_begin_with_the_third_epoch(tmp_path):
    entries = history.read(trained(tmp_path, weighting="dwa").history)
    assert [entry["weights"] for entry in entries[:2]] == [{"sign": 1.0, "far": 1.0}] * 2
    losses = [entries[epoch]["train"] for epoch in (0, 1)]
    ratio = {name: losses[1][name] / losses[0][name] for name in ("sign", "far")}
    raised = {name: np.exp(value / 2) for name, value in ratio.items()}
    expected = {name: 2 * value / sum(raised.values()) for name, value in raised.items()}
    assert entries[2]["weights"] == pytest.approx(expected)


def test_the_monitored_loss_has_the_fixed_weights_whatever_the_weighting(tmp_path):
    for weighting in ("fixed", "uncertainty", "dwa"):
        run = trained(tmp_path / weighting, weighting=weighting, loss_weights={"far": 3.0})
        for entry in history.read(run.history):
            values = entry["validation"]
            assert entry["loss"]["validation"] == pytest.approx(values["sign"]["loss"] + 3 * values["far"]["loss"])


@pytest.mark.parametrize(
    "gradients", ["upgrad", "dualproj", "pcgrad", "mgda", "imtlg", "alignedmtl", "graddrop", "config"]
)
def test_every_way_of_joining_gradients_learns_both_tasks(tmp_path, gradients):
    run = trained(tmp_path, gradients=gradients, max_epochs=12, learning_rate=3e-2)
    assert run.record.metrics["sign"]["accuracy"] > 0.85
    assert run.record.metrics["far"]["r2"] > 0.7


def test_joined_gradients_leave_a_frozen_trunk_alone(tmp_path):
    assert moved(trained(tmp_path, gradients="upgrad", freeze_trunk=True)) == {
        "heads.sign.linear",
        "heads.far.layers.0",
    }


def test_a_clipped_gradient_moves_the_weights_otherwise(tmp_path):
    plain, clipped = (trained(tmp_path / name, gradient_clip=clip) for name, clip in (("a", None), ("b", 1e-3)))
    assert plain.weights.read_bytes() != clipped.weights.read_bytes()


# Unequal data


def holed(part, keep):
    """`far` is known for the last few rows only."""
    far = part.targets["far"].copy()
    far[:-keep] = np.nan
    return Rows(part.inputs, {**part.targets, "far": far})


@pytest.mark.parametrize(("sampling", "seen"), [("shuffle", 8), ("proportional", (9, 40)), ("balanced", (64, 80))])
def test_sampling_decides_how_often_a_small_task_is_seen(tmp_path, sampling, seen):
    counts = []

    def watch(inputs, targets, _generator):
        counts.append(int((~torch.isnan(targets["far"])).sum()))
        return inputs, targets

    split = Split(holed(SPLIT.train, 8), SPLIT.validation, SPLIT.test)
    recipe = RECIPE.changed({"sampling": sampling, "max_epochs": 1})
    train(SPEC, network, split, recipe, tmp_path, "toys:network", watch)
    least, most = seen if isinstance(seen, tuple) else (seen, seen)
    assert least <= sum(counts) <= most


def test_batches_without_any_known_target_are_no_steps(tmp_path):
    sign = np.full(128, -1)
    sign[:2] = (0, 1)
    lonely = Rows(SPLIT.train.inputs, {"sign": sign})
    split = Split(lonely, SPLIT.validation.of(["sign"]), SPLIT.test.of(["sign"]))
    built, seen, known = network(), [], []

    def watch(inputs, targets, _generator):
        seen.append(torch.cat([parameter.detach().flatten() for parameter in built.parameters()]))
        known.append(bool((targets["sign"] >= 0).any()))
        return inputs, targets

    recipe = RECIPE.changed({"batch_size": 4, "max_epochs": 2, "weight_decay": 0.5})
    train(SPEC, lambda _: built, split, recipe, tmp_path, "toys:network", watch)
    stepped = [not torch.equal(before, after) for before, after in pairwise(seen)]
    assert stepped == known[:-1]
    assert 1 <= sum(known) <= 4


# What is kept


@pytest.mark.parametrize(
    ("monitor", "best"), [("far/mae", min), ("sign/accuracy", max), ("far/r2", max), ("loss", min)]
)
def test_the_best_epoch_is_that_of_the_monitored_value(tmp_path, monitor, best):
    run = trained(tmp_path, monitor=monitor, learning_rate=0.1, max_epochs=6)
    values = [history.monitored(entry, monitor) for entry in history.read(run.history)]
    assert run.record.score == best(values)
    assert run.record.best_epoch == values.index(best(values)) + 1
    assert run.record.monitor == monitor


def test_a_monitored_value_that_no_row_gives_is_told(tmp_path):
    nothing = SPLIT.validation.targets["far"] * np.nan
    validation = Rows(SPLIT.validation.inputs, {**SPLIT.validation.targets, "far": nothing})
    with pytest.raises(RecipeError, match=r"^monitor 'far/mae' has no value on the validation rows"):
        trained(tmp_path, split=Split(SPLIT.train, validation, SPLIT.test), monitor="far/mae")
    with pytest.raises(RunError, match="is no finished training run"):
        Run.open(tmp_path)


def test_a_loss_that_is_not_finite_names_head_and_epoch(tmp_path):
    class Breaking(nn.Module):
        """Its regression becomes NaN after so many training steps."""

        def __init__(self):
            super().__init__()
            self.trunk, self.sign, self.far, self.steps = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1), 0

        def forward(self, x):
            self.steps += self.training
            features = self.trunk(x)
            return {"sign": self.sign(features), "far": self.far(features) * (torch.nan if self.steps > 6 else 1)}

    with pytest.raises(RunError, match=r"^head 'far': the train loss is not finite \(nan\) in epoch 2: lower the"):
        trained(tmp_path, build=lambda _: Breaking())


def test_mixed_precision_on_a_cpu_learns_in_bfloat16_and_keeps_float32_weights(tmp_path):
    run = trained(tmp_path, precision="bf16-mixed", max_epochs=8, learning_rate=3e-2, gradient_clip=10.0)
    assert run.record.metrics["far"]["r2"] > 0.8
    assert {tensor.dtype for name, tensor in load_file(run.weights).items() if "weight" in name} == {torch.float32}
    assert run.weights.read_bytes() != trained(tmp_path, max_epochs=8, learning_rate=3e-2).weights.read_bytes()


# Networks that do not fit


def test_a_network_whose_head_has_another_size_is_told_so(tmp_path):
    def wide(_rows):
        return MultiTaskNetwork(MLP(4, (8,)), {"sign": nn.Linear(8, 3), "far": nn.Linear(8, 1)})

    with pytest.raises(
        SpecError, match=r"^head 'sign': the network returns shape \[32, 3\], the spec wants \[batch, 2\]"
    ):
        trained(tmp_path, build=wide)


def test_a_network_in_evaluation_is_trained_all_the_same(tmp_path):
    run = trained(tmp_path, build=lambda _: network().eval())
    assert moved(run) == ALL
