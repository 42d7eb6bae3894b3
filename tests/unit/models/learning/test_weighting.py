import math

import pytest
import torch

from polyhead.models.learning.conflict import AGGREGATORS, backward
from polyhead.models.learning.weighting import DynamicAverage, Fixed, Uncertainty, build_weighting
from polyhead.models.recipe import Recipe
from polyhead.models.spec import ModelSpec

HEADS = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [2]}},
        "heads": {"a": {"kind": "classification", "labels": ["n", "y"]}, "b": {"kind": "regression"}},
    }
).heads
LOSSES = {"a": torch.tensor(3.0), "b": torch.tensor(0.5)}


def numbers(terms):
    return {task: term.item() for task, term in terms.items()}


# Fixed


def test_fixed_weights_multiply_and_zero_leaves_out():
    weighting = Fixed({"a": 2.0, "b": 0.0})
    assert numbers(weighting(LOSSES)) == {"a": 6.0}
    assert weighting.weights() == {"a": 2.0, "b": 0.0}


def test_a_task_without_a_known_target_is_not_there():
    assert numbers(Fixed({"a": 2.0, "b": 1.0})({"b": torch.tensor(0.5)})) == {"b": 0.5}


# Uncertainty (Kendall, Gal & Cipolla 2018)


def test_uncertainty_starts_from_the_losses_themselves_and_half_of_a_squared_error():
    weighting = Uncertainty({"a": 1.0, "b": 1.0}, HEADS)
    assert numbers(weighting(LOSSES)) == {"a": 3.0, "b": 0.25}
    assert weighting.weights() == {"a": 1.0, "b": 0.5}


def test_the_learnt_variance_is_the_one_that_the_paper_derives():
    # At the least of exp(-s) L + s/2 the variance exp(s) is 2 L; of exp(-s)/2 L + s/2 it is L.
    weighting = Uncertainty({"a": 1.0, "b": 5.0}, HEADS)  # a fixed weight moves no minimum
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        sum(weighting(LOSSES).values()).backward()
        optimizer.step()
    assert [math.exp(s.item()) for s in weighting.log_variances] == pytest.approx([6.0, 0.5], rel=1e-3)
    assert weighting.weights() == {"a": pytest.approx(1 / 6, rel=1e-3), "b": pytest.approx(5 * 0.5 / 0.5, rel=1e-3)}


def test_an_absent_tasks_variance_gets_no_gradient():
    weighting = Uncertainty({"a": 1.0, "b": 1.0}, HEADS)
    sum(weighting({"b": LOSSES["b"]}).values()).backward()
    assert weighting.log_variances[0].grad is None
    assert weighting.log_variances[1].grad != 0


def test_variances_are_no_conflict_of_the_tasks():
    shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    found = {}
    for name in ("sum", "upgrad", "pcgrad", "mgda"):
        weighting, shared.grad = Uncertainty({"a": 1.0, "b": 1.0}, HEADS), None
        terms = weighting({"a": (shared * torch.tensor([1.0, 0.0])).sum(), "b": -3 * shared.sum()})
        if name == "sum":
            sum(terms.values()).backward()
        else:
            backward(list(terms.values()), [shared, *weighting.parameters()], AGGREGATORS[name])
        found[name] = [variance.grad.item() for variance in weighting.log_variances]
    assert found["sum"] == pytest.approx([-0.5, 5.0])
    assert all(gradients == pytest.approx(found["sum"]) for gradients in found.values())


# Dynamic weight average (Liu, Johns & Davison 2019)


def test_dynamic_weights_are_one_for_two_epochs_and_then_the_papers():
    weighting = DynamicAverage({"a": 1.0, "b": 1.0})
    assert weighting.weights() == {"a": 1.0, "b": 1.0}
    weighting.follow({"a": 4.0, "b": 1.0})
    assert weighting.weights() == {"a": 1.0, "b": 1.0}
    weighting.follow({"a": 2.0, "b": 1.0})  # a fell to a half, b did not
    total = math.exp(0.5 / 2) + math.exp(1.0 / 2)
    expected = {"a": 2 * math.exp(0.25) / total, "b": 2 * math.exp(0.5) / total}
    assert weighting.weights() == pytest.approx(expected)
    assert numbers(weighting(LOSSES)) == pytest.approx({"a": 3 * expected["a"], "b": 0.5 * expected["b"]})
    weighting.follow({"a": 2.0, "b": 0.5})  # only the last two epochs count
    assert weighting.weights() == pytest.approx({"a": expected["b"], "b": expected["a"]})


def test_dynamic_weights_sum_to_the_number_of_tasks_and_temperature_evens_them_out():
    weightings = [DynamicAverage({"a": 1.0, "b": 1.0}, temperature) for temperature in (0.5, 100.0)]
    for weighting in weightings:
        weighting.follow({"a": 4.0, "b": 1.0})
        weighting.follow({"a": 1.0, "b": 2.0})
    sharp, even = (weighting.weights() for weighting in weightings)
    assert sum(sharp.values()) == pytest.approx(2) == pytest.approx(sum(even.values()))
    assert sharp["b"] / sharp["a"] > 20
    assert even["b"] / even["a"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("epochs", [[{"b": 1.0}, {"a": 2.0, "b": 1.0}], [{"a": 0.0, "b": 1.0}, {"a": 2.0, "b": 1.0}]])
def test_a_task_that_an_epoch_did_not_see_or_that_had_no_loss_does_not_lead(epochs):
    weighting = DynamicAverage({"a": 1.0, "b": 1.0})
    for losses in epochs:
        weighting.follow(losses)
    assert weighting.weights() == pytest.approx({"a": 1.0, "b": 1.0})


def test_fixed_weights_multiply_dynamic_ones():
    weighting = DynamicAverage({"a": 3.0, "b": 0.0})
    assert numbers(weighting(LOSSES)) == {"a": 9.0}


def test_a_task_of_no_weight_takes_nothing_from_the_others():
    weighting = DynamicAverage({"a": 1.0, "b": 1.0, "c": 0.0})
    for losses in ({"a": 2.0, "b": 2.0, "c": 2.0}, {"a": 1.0, "b": 2.0, "c": 200.0}):
        weighting.follow(losses)
    found = weighting.weights()
    assert found["a"] + found["b"] == pytest.approx(2.0)
    assert found["c"] == 0


def test_what_the_average_has_seen_travels_in_its_state():
    weighting, other = DynamicAverage({"a": 1.0, "b": 1.0}), DynamicAverage({"a": 1.0, "b": 1.0})
    weighting.follow({"a": 4.0, "b": 1.0})
    weighting.follow({"a": 1.0, "b": 2.0})
    other.load_state_dict(weighting.state_dict())
    assert other.weights() == weighting.weights()


# From the recipe


@pytest.mark.parametrize(("name", "kind"), [("fixed", Fixed), ("uncertainty", Uncertainty), ("dwa", DynamicAverage)])
def test_the_recipe_names_the_weighting_and_its_fixed_weights(name, kind):
    weighting = build_weighting(Recipe(weighting=name, loss_weights={"b": 4.0}), HEADS)
    assert type(weighting) is kind
    assert weighting.fixed == {"a": 1.0, "b": 4.0}


def test_the_recipe_gives_the_temperature():
    assert build_weighting(Recipe(weighting="dwa", dwa_temperature=7.0), HEADS).temperature == 7.0
