"""Conflicting gradients, against computation by hand: a loss is the product of the shared vector with a direction."""

import typing

import pytest
import torch
from torch import nn

from polyhead.models.learning import conflict
from polyhead.models.learning.conflict import AGGREGATORS
from polyhead.models.recipe import Recipe

# Two tasks that pull apart in the first direction and agree in the second.
A, B = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([-2.0, 1.0, 0.0])
PROJECTING = ("upgrad", "dualproj", "pcgrad", "mgda", "imtlg", "config")
RANDOM = ("graddrop",)


class Two(nn.Module):
    """Shared values, and one of each task's own."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.own = nn.ParameterDict({"a": nn.Parameter(torch.tensor(2.0)), "b": nn.Parameter(torch.tensor(3.0))})
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def losses(self, directions=(A, B)):
        return [
            (direction * self.shared * self.frozen).sum() + own**2
            for direction, own in zip(directions, self.own.values(), strict=True)
        ]

    def gradients(self):
        return {name: parameter.grad for name, parameter in self.named_parameters()}


def plain(rows):
    return rows.sum(dim=0)


def after(aggregator, **options):
    torch.manual_seed(0)
    network = Two()
    conflict.backward(network.losses(**options), list(network.parameters()), aggregator)
    return network.gradients()


def test_the_recipe_knows_these_aggregators_and_the_sum():
    names = typing.get_args(Recipe.model_fields["gradients"].annotation)
    assert set(names) == {"sum", *AGGREGATORS}


def test_the_sum_of_the_rows_is_the_plain_backward_pass():
    network = Two()
    sum(network.losses()).backward()
    by_task = after(plain)
    for name, gradient in network.gradients().items():
        if gradient is None:
            assert by_task[name] is None
        else:
            assert torch.equal(by_task[name], gradient), name


def test_the_sum_is_the_plain_backward_pass_of_a_real_network():
    torch.manual_seed(0)
    trunk, heads = (
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh()),
        nn.ModuleList([nn.Linear(8, 2), nn.Linear(8, 1)]),
    )
    parameters = [*trunk.parameters(), *heads.parameters()]
    x = torch.randn(16, 4)

    def losses():
        features = trunk(x)
        return [head(features).square().mean() for head in heads]

    torch.stack(losses()).sum().backward()
    expected = [parameter.grad.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    conflict.backward(losses(), parameters, plain)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_what_is_a_tasks_own_gets_its_own_gradient_and_frozen_parameters_none(name):
    gradients = after(AGGREGATORS[name])
    assert (gradients["own.a"].item(), gradients["own.b"].item()) == (4.0, 6.0)
    assert gradients["frozen"] is None
    assert gradients["shared"].isfinite().all()


@pytest.mark.parametrize("name", PROJECTING)
def test_the_direction_hurts_no_task(name):
    assert (A + B) @ A < 0  # the plain sum does
    direction = after(AGGREGATORS[name])["shared"]
    for task in (A, B):
        assert torch.cosine_similarity(direction, task, dim=0) > -1e-3  # torchjd's projections are regularised
    assert direction.norm() > 0


def test_pcgrad_by_hand():
    # Yu et al. 2020: each gradient without its part along the other, then summed.
    expected = (A - (A @ B) / (B @ B) * B) + (B - (A @ B) / (A @ A) * A)
    torch.testing.assert_close(after(AGGREGATORS["pcgrad"])["shared"], expected)


def test_upgrad_by_hand():
    # Of two conflicting gradients, each one's projection onto the cone that hurts neither is the part across the other.
    expected = (A - (A @ B) / (B @ B) * B) + (B - (A @ B) / (A @ A) * A)
    torch.testing.assert_close(after(AGGREGATORS["upgrad"])["shared"], expected, rtol=1e-3, atol=1e-3)


def test_mgda_by_hand():
    # Désidéri 2012: the shortest vector between the two.
    share = ((B - A) @ B / ((B - A) @ (B - A))).clamp(0, 1)
    torch.testing.assert_close(after(AGGREGATORS["mgda"])["shared"], share * A + (1 - share) * B, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "pcgrad"])
def test_tasks_that_agree_get_the_sum(name):
    agree = (torch.tensor([1.0, 0.0, 2.0]), torch.tensor([2.0, 1.0, 0.0]))
    torch.testing.assert_close(after(AGGREGATORS[name], directions=agree)["shared"], sum(agree), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_one_task_alone_has_its_own_way(name):
    network = Two()
    conflict.backward(network.losses()[:1], list(network.parameters()), AGGREGATORS[name])
    assert torch.equal(network.shared.grad, A)
    assert network.own["b"].grad is None


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_task_without_a_gradient_does_not_pin_the_others(name):
    gradients = after(AGGREGATORS[name], directions=(A, torch.zeros(3)))
    assert torch.equal(gradients["shared"], A)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_an_infinite_gradient_stays_visible_so_that_the_step_is_skipped(name):
    gradients = after(AGGREGATORS[name], directions=(A, torch.tensor([torch.inf, 0.0, 0.0])))
    assert not gradients["shared"].isfinite().all()


@pytest.mark.parametrize("name", AGGREGATORS)
def test_many_parallel_and_nearly_parallel_gradients_stay_finite(name):
    torch.manual_seed(0)
    rows = torch.randn(1, 50).repeat(6, 1) * torch.tensor([1e-4, 1.0, 1e3, 1.0, -1.0, 1.0])[:, None]
    rows[3] += 1e-6 * torch.randn(50)
    assert conflict.aggregate(rows, AGGREGATORS[name]).isfinite().all()


def test_gradients_accumulate_as_backward_does():
    network = Two()
    for _ in range(2):
        conflict.backward(network.losses(), list(network.parameters()), plain)
    assert torch.equal(network.shared.grad, 2 * (A + B))
    assert network.own["a"].grad.item() == 8.0


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_same_seed_gives_the_same_direction(name):
    assert torch.equal(after(AGGREGATORS[name])["shared"], after(AGGREGATORS[name])["shared"])


def test_shared_are_the_parameters_that_several_losses_reach_and_the_graph_stays():
    network = Two()
    losses = network.losses()
    assert conflict.shared(losses, list(network.parameters())) == [network.shared]
    conflict.backward(losses, list(network.parameters()), plain)
    assert torch.equal(network.shared.grad, A + B)


def test_a_parameter_of_some_tasks_only_is_aggregated_among_these():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    losses = [first.sum(), (2 * first + 3 * second).sum(), second.sum()]
    seen = []

    def watch(rows):
        seen.append(rows.clone())
        return rows.sum(dim=0)

    conflict.backward(losses, [first, second], watch)
    assert seen[0].tolist() == [[1, 1, 0, 0], [2, 2, 3, 3], [0, 0, 1, 1]]
    assert (first.grad.tolist(), second.grad.tolist()) == ([3, 3], [4, 4])
