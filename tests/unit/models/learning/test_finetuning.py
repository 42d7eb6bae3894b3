import pytest
import torch
from torch import nn

from polyhead.models.learning.finetuning import Finetuning, heads_of, trunk_of
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe, RecipeError


class Trunk(nn.Module):
    """Three blocks, each with dropout and normalisation, and a scale that is in none of them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(3)
        )

    def forward(self, x):
        x = self.scale * x
        for layer in self.layers:
            x = layer(x)
        return x

    def blocks(self):
        return list(self.layers)


def network():
    return MultiTaskNetwork(Trunk(), {"a": nn.Linear(4, 2), "b": nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5))})


def learning(network):
    """Which parts learn, and which are in training."""
    parts = {"scale": network.trunk.scale, **{f"layer{i}": layer for i, layer in enumerate(network.trunk.layers)}}
    parts |= dict(network.heads.items())
    found = set()
    for name, part in parts.items():
        parameters = [part] if isinstance(part, nn.Parameter) else list(part.parameters())
        states = {parameter.requires_grad for parameter in parameters}
        assert len(states) == 1, name
        if not isinstance(part, nn.Parameter):
            assert {module.training for module in part.modules()} == states, name
        if states == {True}:
            found.add(name)
    return found


EVERYTHING = {"scale", "layer0", "layer1", "layer2", "a", "b"}


def at(recipe, epoch, heads=("a", "b")):
    made = network()
    Finetuning(made, recipe, heads).begin(epoch)
    return learning(made)


def test_by_default_everything_learns():
    assert at(Recipe(), 0) == EVERYTHING


def test_a_frozen_trunk_is_frozen_for_good_with_its_normalisation_and_dropout():
    assert at(Recipe(freeze_trunk=True), 0) == at(Recipe(freeze_trunk=True), 30) == {"a", "b"}


def test_blocks_wake_from_the_top_and_the_bottom_one_brings_what_is_in_none():
    recipe = Recipe(unfreeze={"after_epochs": 1, "blocks_per_epoch": 1})
    made = network()
    finetuning = Finetuning(made, recipe, ("a", "b"))
    seen = []
    for epoch in range(5):
        finetuning.begin(epoch)
        seen.append(learning(made))
    heads = {"a", "b"}
    assert seen == [heads, heads | {"layer2"}, heads | {"layer2", "layer1"}, EVERYTHING, EVERYTHING]


def test_beginning_a_later_epoch_at_once_is_the_same_as_going_there():
    assert at(Recipe(unfreeze={}), 2) == {"a", "b", "layer2", "layer1"}


def test_frozen_running_statistics_do_not_move():
    made = network()
    Finetuning(made, Recipe(unfreeze={}), ("a", "b")).begin(1)
    before = {name: buffer.clone() for name, buffer in made.named_buffers() if "running_mean" in name}
    made(x=torch.randn(8, 4) + 5)
    moved = {name for name, buffer in made.named_buffers() if name in before and not torch.equal(buffer, before[name])}
    assert moved == {"trunk.layers.2.1.running_mean"}


def test_parameters_are_frozen_by_the_beginning_of_their_names():
    assert at(Recipe(freeze=("trunk.layers.0", "heads.b")), 0) == EVERYTHING - {"layer0", "b"}
    assert at(Recipe(freeze=("trunk.scale",)), 0) == EVERYTHING - {"scale"}
    assert at(Recipe(freeze=("trunk",)), 0) == {"a", "b"}
    assert at(Recipe(freeze=("trunk.layers.2",), unfreeze={}), 2) == {"a", "b", "layer1"}


def test_heads_that_are_not_trained_do_not_learn():
    assert at(Recipe(), 0, heads=("b",)) == EVERYTHING - {"a"}


def test_what_the_network_itself_has_frozen_stays_so():
    made = network()
    made.trunk.scale.requires_grad_(False)
    finetuning = Finetuning(made, Recipe(unfreeze={"after_epochs": 0}), ("a", "b"))
    finetuning.begin(9)
    assert learning(made) == EVERYTHING - {"scale"}


def test_backward_stops_at_a_frozen_trunk():
    made = network()
    Finetuning(made, Recipe(freeze_trunk=True), ("a", "b")).begin(0)
    features = made.features(x=torch.randn(3, 4))
    assert not features.requires_grad


# Rates


def rates(recipe, heads=("a", "b")):
    return {group["name"]: pytest.approx(group["lr"]) for group in Finetuning(network(), recipe, heads).groups()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"heads": 0.1, "trunk": 0.1}),
        ({"trunk_learning_rate": 0.01}, {"heads": 0.1, "trunk": 0.01}),
        ({"layer_decay": 0.5}, {"heads": 0.1, "trunk.2": 0.1, "trunk.1": 0.05, "trunk.0": 0.025}),
        (
            {"layer_decay": 0.5, "trunk_learning_rate": 0.01},
            {"heads": 0.1, "trunk.2": 0.01, "trunk.1": 0.005, "trunk.0": 0.0025},
        ),
        ({"unfreeze": {}}, {"heads": 0.1, "trunk.2": 0.1, "trunk.1": 0.1, "trunk.0": 0.1}),
        ({"freeze_trunk": True}, {"heads": 0.1}),
        ({"freeze": ["trunk"]}, {"heads": 0.1}),
        ({"freeze": ["heads"]}, {"trunk": 0.1}),
    ],
)
def test_rates_fall_from_the_top_block_down(changes, expected):
    assert rates(Recipe(learning_rate=0.1).changed(changes)) == expected


@pytest.mark.parametrize("changes", [{}, {"layer_decay": 0.5}, {"unfreeze": {}}, {"freeze": ["trunk.layers.1"]}])
def test_every_parameter_that_may_learn_is_in_one_group(changes):
    made = network()
    finetuning = Finetuning(made, Recipe().changed(changes), ("a", "b"))
    grouped = [id(parameter) for group in finetuning.groups() for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in finetuning.parameters()}


def test_counts_tell_total_trunk_heads_and_what_may_learn():
    made = network()
    trunk = 1 + 3 * (4 * 4 + 4 + 8)
    counts = Finetuning(made, Recipe(), ("a", "b")).counts()
    assert counts == {"total": trunk + 15, "trunk": trunk, "heads": {"a": 10, "b": 5}, "trainable": trunk + 15}
    assert Finetuning(network(), Recipe(freeze_trunk=True), ("b",)).counts()["trainable"] == 5
    assert Finetuning(network(), Recipe(unfreeze={}), ("a", "b")).counts()["trainable"] == trunk + 15


# Networks that are built otherwise


class Bare(nn.Module):
    """No trunk and no heads by these names."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.task = nn.Linear(4, 1)


def test_a_network_without_trunk_has_one_group_and_can_freeze_by_name():
    made = Bare()
    assert (trunk_of(made), heads_of(made)) == (None, {})
    finetuning = Finetuning(made, Recipe(freeze=("backbone",)), ("task",))
    finetuning.begin(0)
    assert [group["name"] for group in finetuning.groups()] == ["network"]
    assert finetuning.counts() == {"total": 25, "trunk": 0, "heads": {}, "trainable": 5}
    assert not made.backbone.training
    assert made.task.training


@pytest.mark.parametrize(
    "changes", [{"freeze_trunk": True}, {"unfreeze": {}}, {"trunk_learning_rate": 0.1}, {"layer_decay": 0.5}]
)
def test_what_is_said_of_a_trunk_needs_one(changes):
    with pytest.raises(RecipeError) as caught:
        Finetuning(Bare(), Recipe().changed(changes), ("task",))
    (key,) = changes
    assert str(caught.value) == (
        f"{key}: the network has no module by the name trunk: name it so, or freeze parameters by name"
    )


@pytest.mark.parametrize("changes", [{"unfreeze": {}}, {"layer_decay": 0.5}])
def test_what_is_said_of_blocks_needs_blocks(changes):
    made = MultiTaskNetwork(nn.Linear(4, 4), {"a": nn.Linear(4, 2)})
    with pytest.raises(RecipeError) as caught:
        Finetuning(made, Recipe().changed(changes), ("a",))
    (key,) = changes
    assert str(caught.value).startswith(f"{key}: the trunk (Linear) has no method blocks(): give it one")


def test_a_trunk_without_blocks_can_be_frozen_and_have_its_rate():
    made = MultiTaskNetwork(nn.Linear(4, 4), {"a": nn.Linear(4, 2)})
    groups = Finetuning(made, Recipe(trunk_learning_rate=0.5), ("a",)).groups()
    assert [(group["name"], group["lr"]) for group in groups] == [("heads", 3e-3), ("trunk", 0.5)]
    Finetuning(made, Recipe(freeze_trunk=True), ("a",)).begin(0)
    assert not made.trunk.weight.requires_grad


@pytest.mark.parametrize(
    ("freeze", "says"),
    [
        (("trunk", "heads"), "the recipe freezes every parameter: there is nothing left to learn"),
        (("trunk.laye",), "freeze: no parameter's name begins with 'trunk.laye' (the first is 'trunk.scale')"),
    ],
)
def test_freezing_nothing_or_everything_is_refused(freeze, says):
    with pytest.raises(RecipeError) as caught:
        Finetuning(network(), Recipe(freeze=freeze), ("a", "b"))
    assert str(caught.value) == says


def test_a_parameter_that_two_blocks_share_is_the_lower_ones():
    trunk = Trunk()
    trunk.layers[2][0].weight = trunk.layers[0][0].weight
    finetuning = Finetuning(MultiTaskNetwork(trunk, {"a": nn.Linear(4, 2)}), Recipe(layer_decay=0.5), ("a",))
    by_name = {group["name"]: group["params"] for group in finetuning.groups()}
    assert any(parameter is trunk.layers[0][0].weight for parameter in by_name["trunk.0"])
    assert not any(parameter is trunk.layers[0][0].weight for parameter in by_name["trunk.2"])
