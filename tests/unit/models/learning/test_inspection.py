import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from polyhead.models.learning.inspection import GradientReport, gradients, weight_norms
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.trunks.mlp import MLP


def parameter(*values, learns=True):
    return nn.Parameter(torch.tensor(values), requires_grad=learns)


def test_norms_and_cosines_are_those_of_gradients_written_out_by_hand():
    p = parameter(1.0, 2.0)
    losses = {"right": 3 * p[0], "up": 4 * p[1], "left": -0.5 * p[0], "both": p.sum()}
    report = gradients(losses, [p])
    assert report.norms == pytest.approx({"right": 3.0, "up": 4.0, "left": 0.5, "both": math.sqrt(2)})
    assert report.cosines == pytest.approx(
        {
            "both|left": -math.sqrt(0.5),
            "both|right": math.sqrt(0.5),
            "both|up": math.sqrt(0.5),
            "left|right": -1.0,
            "left|up": 0.0,
            "right|up": 0.0,
        }
    )


def test_each_pair_stands_once_and_in_the_order_of_the_alphabet():
    p = parameter(1.0)
    report = gradients({name: p.sum() for name in ("c", "a", "b")}, [p])
    assert list(report.norms) == ["a", "b", "c"]
    assert list(report.cosines) == ["a|b", "a|c", "b|c"]


def test_gradients_span_all_parameters_and_count_an_unused_one_as_zero():
    p, q = parameter(1.0), parameter(1.0, 1.0)
    report = gradients({"p": 3 * p.sum(), "both": 3 * p.sum() + 4 * q[0]}, [p, q])
    assert report.norms == pytest.approx({"p": 3.0, "both": 5.0})
    assert report.cosines == pytest.approx({"both|p": 0.6})


def test_frozen_parameters_are_left_out_and_with_nothing_that_learns_there_is_no_report():
    p, frozen = parameter(1.0), parameter(5.0, learns=False)
    assert gradients({"a": (p * frozen).sum()}, [p, frozen]).norms == pytest.approx({"a": 5.0})
    assert gradients({"a": (p * frozen).sum()}, [frozen]) == GradientReport({}, {})


def test_a_zero_gradient_has_cosine_zero_never_nan():
    p, other = parameter(1.0), parameter(1.0)
    losses = {"a": p.sum(), "elsewhere": other.sum(), "constant": torch.tensor(1.0), "flat": 0 * p.sum()}
    report = gradients(losses, [p])
    assert report.norms == {"a": 1.0, "constant": 0.0, "elsewhere": 0.0, "flat": 0.0}
    assert set(report.cosines.values()) == {0.0}


def test_a_gradient_that_is_not_finite_is_left_out():
    p = parameter(0.0)
    report = gradients({"a": p.sum(), "b": p.sum(), "infinite": p.sum().sqrt()}, [p])
    assert report == GradientReport({"a": 1.0, "b": 1.0}, {"a|b": 1.0})


@pytest.mark.parametrize("scale", [1e-38, 1e30])
def test_tiny_and_huge_gradients_keep_their_directions(scale):
    p = parameter(1.0, 1.0)
    report = gradients({"a": scale * p.sum(), "b": -scale * p.sum(), "c": p.sum()}, [p])
    assert report.norms["a"] == pytest.approx(scale * math.sqrt(2), rel=1e-3)
    assert report.cosines == pytest.approx({"a|b": -1.0, "a|c": 1.0, "b|c": -1.0}, rel=1e-3)


def test_half_precision_is_measured_in_full():
    p = nn.Parameter(torch.ones(5000, dtype=torch.float16))
    report = gradients({"a": 100 * p.sum(), "b": 100 * p.sum()}, [p])
    assert report.norms["a"] == pytest.approx(100 * math.sqrt(5000), rel=1e-5)
    assert report.cosines["a|b"] == pytest.approx(1.0, rel=1e-5)


def test_measuring_changes_nothing_for_the_step_that_follows():
    torch.manual_seed(0)
    network = MultiTaskNetwork(MLP(4, (8,)), {"a": nn.Linear(8, 1), "b": nn.Linear(8, 1)})
    x = torch.randn(6, 4)

    def step(measured):
        network.zero_grad()
        losses = {name: output.square().mean() for name, output in network(x=x).items()}
        report = gradients(losses, list(network.trunk.parameters())) if measured else None
        assert all(p.grad is None for p in network.parameters())
        sum(losses.values()).backward()
        return report, [p.grad.clone() for p in network.parameters()]

    report, with_it = step(True)
    _, without = step(False)
    assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))
    # The trunk's gradient is the sum of the tasks': |a + b|^2 = |a|^2 + |b|^2 + 2 |a| |b| cos.
    whole = sum(float(p.grad.square().sum()) for p in network.trunk.parameters())
    a, b = report.norms["a"], report.norms["b"]
    assert whole == pytest.approx(a**2 + b**2 + 2 * a * b * report.cosines["a|b"], rel=1e-4)


def test_a_report_is_plain_json():
    p = parameter(1.0)
    report = gradients({"a": p.sum(), "b": -p.sum()}, [p])
    assert json.loads(json.dumps(asdict(report), allow_nan=False)) == asdict(report)


def test_weights_are_measured_by_block_of_the_trunk_and_by_head():
    network = MultiTaskNetwork(MLP(2, (2, 2)), {"a": nn.Linear(2, 1), "type": nn.Linear(2, 1), "none": nn.Identity()})
    for value, part in enumerate([*network.trunk.blocks(), network.heads["a"], network.heads["type"]], start=1):
        for p in part.parameters():
            nn.init.constant_(p, value)
    assert weight_norms(network) == pytest.approx(
        {
            "trunk/0": math.sqrt(6),
            "trunk/1": 2 * math.sqrt(6),
            "heads/a": 3 * math.sqrt(3),
            "heads/type": 4 * math.sqrt(3),
        }
    )


def test_blocks_are_numbered_so_that_they_sort():
    network = MultiTaskNetwork(MLP(2, (2,) * 11), {"a": nn.Linear(2, 1)})
    names = list(weight_norms(network))
    assert names == [*(f"trunk/{index:02d}" for index in range(11)), "heads/a"]


def test_a_trunk_without_blocks_is_one_part_and_any_other_network_is_taken_by_its_children():
    plain = MultiTaskNetwork(nn.Linear(2, 2), {"a": nn.Linear(2, 1)})
    assert list(weight_norms(plain)) == ["trunk/0", "heads/a"]
    other = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert list(weight_norms(other)) == ["0", "2"]
