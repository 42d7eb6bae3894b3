import math

import pytest
import torch
from torch import nn

from polyhead.models.learning.rates import build_optimizer, build_schedule, factor
from polyhead.models.recipe import Recipe


def course(changes, steps=10, rates=(0.1, 0.01)):
    """Each group's rate at every step."""
    recipe = Recipe(learning_rate=0.1).changed(changes)
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = build_optimizer(recipe, groups)
    schedule = build_schedule(recipe, optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        for group in groups:
            group["params"][0].grad = torch.ones(1)
        optimizer.step()
        if len(seen) < steps:
            schedule.step()
    return [list(column) for column in zip(*seen, strict=True)]


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [None, 0.0, 0.2])
def test_every_group_goes_the_same_way_at_its_own_height(schedule, warmup):
    high, low = course({"schedule": schedule, "warmup": warmup})
    assert low == pytest.approx([rate / 10 for rate in high])
    assert max(high) <= 0.1 + 1e-12
    assert min(high) > 0


def test_constant_stays():
    assert course({"schedule": "constant"})[0] == [0.1] * 10


def test_linear_falls_by_equal_steps():
    assert course({"schedule": "linear"})[0] == pytest.approx([0.1 * (1 - i / 10) for i in range(10)])


def test_cosine_falls_along_half_a_cosine():
    assert course({"schedule": "cosine"})[0] == pytest.approx(
        [0.05 * (1 + math.cos(math.pi * i / 10)) for i in range(10)]
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_warmup_rises_on_a_line_to_the_full_rate(schedule):
    rates = course({"schedule": schedule, "warmup": 0.3})[0]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4:] == pytest.approx(sorted(rates[4:], reverse=True))


def test_onecycle_rises_for_three_tenths_unless_told_and_ends_near_zero():
    rates = course({}, steps=100)[0]
    assert rates.index(max(rates)) == pytest.approx(30, abs=1)
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[-1] < 1e-5
    assert (early := course({"warmup": 0.1}, steps=100)[0]).index(max(early)) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "linear", "constant"])
def test_the_shortest_runs_have_rates_too(schedule, steps):
    assert all(math.isfinite(rate) for rate in course({"schedule": schedule}, steps=steps)[0])


def test_a_step_beyond_the_last_is_not_negative():
    assert factor("linear", 0.0, 10)(10) == 0
    assert factor("cosine", 0.5, 10)(10) == pytest.approx(0)


def test_the_optimiser_decays_as_the_recipe_says_and_a_group_may_have_its_own():
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1},
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1, "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(Recipe(weight_decay=0.3), groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 10), (0.25, 4), (0.5, 2)])
def test_a_warm_up_of_one_step_is_no_division_by_zero(warmup, steps):
    rates = course({"schedule": "onecycle", "warmup": warmup}, steps=steps)[0]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[-1] < rates[1] or steps == 2
