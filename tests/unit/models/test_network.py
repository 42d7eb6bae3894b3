import numpy as np
import pytest
import torch
from torch import nn

from polyhead.export import assemble
from polyhead.export.source import Source, random_samples
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork, NamedModules
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.mlp import MLP
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine


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


# Names that a ModuleDict keeps for itself

METHODS = ["type", "values", "keys", "items", "half", "float"]


@pytest.mark.parametrize("name", METHODS)
def test_a_plain_module_dict_would_refuse_the_name(name):
    with pytest.raises(KeyError, match=f"attribute '{name}' already exists"):
        nn.ModuleDict({name: nn.Linear(3, 1)})


def test_heads_may_be_named_like_methods():
    model, x = network(METHODS), torch.ones(2, 4)
    features, outputs = model.features(x=x), model(x=x)
    assert list(outputs) == METHODS
    for i, name in enumerate(METHODS):
        assert outputs[name].shape == (2, i + 1)
        assert torch.equal(outputs[name], model.heads[name](features))
    assert [key for key in model.state_dict() if key.endswith(".weight")] == [
        "trunk.weight",
        *(f"heads._{name}.weight" for name in METHODS),  # no attribute, and no other name, can be in the way
    ]


def test_heads_named_like_methods_move_train_and_load_as_others():
    model, x = network(METHODS), torch.ones(2, 4)
    assert not any(module.training for module in model.eval().modules())
    fresh = MultiTaskNetwork(nn.Linear(4, 3), {name: nn.Linear(3, i + 1) for i, name in enumerate(METHODS)}).eval()
    fresh.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(fresh(x=x).values(), model(x=x).values(), strict=True))
    assert {p.dtype for p in model.double().parameters()} == {torch.float64}
    assert {p.device.type for p in model.to("meta").parameters()} == {"meta"}


def test_named_modules_are_a_mapping_by_any_name():
    modules = {name: nn.Linear(1, 1) for name in METHODS}
    named = NamedModules(modules)
    assert dict(named.items()) == modules
    assert (list(named.keys()), list(named.values()), len(named)) == (METHODS, list(modules.values()), len(METHODS))
    assert "type" in named
    assert "forward" not in named


def answers_as_exported(folder, inputs, width, heads):
    """Export in every format, then hold what each runtime answers against the network."""
    spec = ModelSpec.parse(
        {"name": "m", "version": "1", "inputs": inputs, "heads": {name: {"kind": "regression"} for name in heads}}
    )
    torch.manual_seed(0)
    model = MultiTaskNetwork(MLP(width, (8,)), {name: build_head(spec.heads[name], 8) for name in heads})
    source = Source(model, spec, random_samples(spec))
    bundle, proofs = assemble.export(source, folder / "bundle")
    assert {proof.runtime for proof in proofs} == {"onnxruntime", "torchscript", "program"}
    for runtime in ("onnxruntime", "torchscript", "program"):
        outputs = Engine.load(Bundle.open(bundle.folder), runtime, "cpu").run(dict(source.samples))
        with torch.inference_mode():
            rows = {name: torch.from_numpy(array) for name, array in source.samples.items()}
            pixels = {name: row.permute(0, 3, 1, 2) / 255 if row.ndim == 4 else row for name, row in rows.items()}
            expected = model.eval()(**pixels)
        for name in heads:
            np.testing.assert_allclose(outputs[name], expected[name].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "heads",
    [
        ("keys", "items", "values"),
        ("type", "values"),
        ("half",),
        ("float",),
    ],
    ids=" ".join,
)
def test_heads_named_like_methods_are_exported(tmp_path, heads):
    answers_as_exported(tmp_path, {"x": {"kind": "tensor", "shape": [6]}}, 6, heads)


def test_an_image_input_named_like_a_method_is_exported(tmp_path):
    answers_as_exported(tmp_path, {"values": {"kind": "image", "size": [2, 2], "channels": "gray"}}, 4, ("size",))


def test_a_head_may_be_named_training():
    model = network(["training"])
    assert not model.eval().heads["training"].training
