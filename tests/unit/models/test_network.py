import pytest
import torch
from torch import nn

from polyhead.models.network import MultiTaskNetwork


class Sum(nn.Module):
    """Adds two named inputs with different weights, so that swapping them shows."""

    def forward(self, left, right):
        return left + 10 * right


def network(names=("a", "b", "c")):
    torch.manual_seed(0)
    return MultiTaskNetwork(nn.Linear(4, 3), {name: nn.Linear(3, i + 1) for i, name in enumerate(names)})


@pytest.mark.parametrize("heads", [1, 2, 50])
def test_the_trunk_runs_exactly_once_however_many_heads_there_are(heads):
    model = network([f"head{i}" for i in range(heads)])
    trunk, head = [], []
    model.trunk.register_forward_hook(lambda *_: trunk.append(1))
    for module in model.heads.values():
        module.register_forward_hook(lambda *_: head.append(1))
    model(x=torch.zeros(5, 4))
    assert (len(trunk), len(head)) == (1, heads)


def test_every_head_answers_from_the_trunks_features():
    model, x = network(), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    features = x @ model.trunk.weight.T + model.trunk.bias
    outputs = model(x=x)
    assert list(outputs) == ["a", "b", "c"]
    for name, head in model.heads.items():
        torch.testing.assert_close(outputs[name], features @ head.weight.T + head.bias)
    assert [tuple(output.shape) for output in outputs.values()] == [(5, 1), (5, 2), (5, 3)]


def test_features_are_the_trunks_output_and_run_no_head():
    model, x = network(), torch.ones(2, 4)
    for head in model.heads.values():
        head.register_forward_hook(lambda *_: pytest.fail("a head ran"))
    assert torch.equal(model.features(x=x), model.trunk(x))


def test_a_single_input_goes_to_the_trunk_whatever_its_name_is():
    model, x = network(), torch.ones(2, 4)
    assert torch.equal(model(image=x)["b"], model(anything=x)["b"])


def test_several_inputs_go_to_the_trunk_by_name_in_any_order():
    model = MultiTaskNetwork(Sum(), {"same": nn.Identity()})
    left, right = torch.ones(2, 3), torch.full((2, 3), 2.0)
    assert torch.equal(model(right=right, left=left)["same"], torch.full((2, 3), 21.0))
    assert torch.equal(model(left=left, right=right)["same"], torch.full((2, 3), 21.0))


def test_every_head_sends_its_gradient_into_the_shared_trunk():
    model, x = network(("a", "b")), torch.ones(2, 4)
    alone = []
    for name in ("a", "b"):
        model.zero_grad()
        model(x=x)[name].sum().backward()
        alone.append(model.trunk.weight.grad.clone())
    model.zero_grad()
    sum(output.sum() for output in model(x=x).values()).backward()
    assert all(gradient.abs().sum() > 0 for gradient in alone)
    torch.testing.assert_close(model.trunk.weight.grad, alone[0] + alone[1])


def test_parameters_are_named_by_trunk_and_head():
    assert list(network(("digit", "ink")).state_dict()) == [
        "trunk.weight",
        "trunk.bias",
        "heads.digit.weight",
        "heads.digit.bias",
        "heads.ink.weight",
        "heads.ink.bias",
    ]


def test_a_network_without_heads_is_refused():
    with pytest.raises(ValueError, match=r"^a multi-task network needs at least one head, got none$"):
        MultiTaskNetwork(nn.Linear(4, 3), {})
