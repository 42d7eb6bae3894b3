from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from polyhead.models.calling import Caller, canonical, takes_names
from polyhead.models.leaves import describe, leaf
from polyhead.models.spec import ModelSpec, SpecError


def spec(heads=None, inputs=None):
    return ModelSpec.parse(
        {
            "name": "toy",
            "version": "1",
            "inputs": inputs or {"x": {"kind": "tensor", "shape": [4]}},
            "heads": heads or {"size": {"kind": "regression"}},
        }
    )


# By name or by position


class ByName(nn.Module):
    def forward(self, *, b, a):
        return {"size": (a - 10 * b)[:, :1]}


class ByPosition(nn.Module):
    def forward(self, first, second):
        return {"size": (first - 10 * second)[:, :1]}


@pytest.mark.parametrize("network", [ByName(), ByPosition()], ids=["names", "positions"])
def test_a_network_gets_its_inputs_by_name_or_in_the_order_of_the_spec(network):
    two = spec(inputs={"a": {"kind": "tensor", "shape": [2]}, "b": {"kind": "tensor", "shape": [2]}})
    caller = Caller(network, two, ["size"])
    a, b = torch.full((3, 2), 7.0), torch.full((3, 2), 2.0)
    assert caller(b=b, a=a)["size"].tolist() == [[-13.0]] * 3


@pytest.mark.parametrize(
    ("forward", "names", "by_name"),
    [
        (lambda x: x, ["x"], True),
        (lambda y: y, ["x"], False),
        (lambda **inputs: inputs, ["x", "y"], True),
        (lambda *inputs: inputs, ["x", "y"], False),
        (lambda y, x=None: x, ["x", "y"], True),
        (lambda a, b=1: a, ["x"], False),
    ],
)
def test_how_a_forward_takes_its_inputs(forward, names, by_name):
    network = nn.Module()
    network.forward = forward
    assert takes_names(network, names) is by_name


@pytest.mark.parametrize(
    ("forward", "names"), [(lambda a, b: a, ["x"]), (lambda: 1, ["x"]), (lambda a, *, k: a, ["x"])]
)
def test_a_forward_that_takes_neither_is_refused(forward, names):
    network = nn.Module()
    network.forward = forward
    with pytest.raises(SpecError, match=r"does not take the spec's inputs \(x\): name the inputs after its parameters"):
        takes_names(network, names)


class Text(nn.Module):
    def forward(self, input_ids, attention_mask, pixels):
        return {"size": (input_ids * attention_mask).sum(dim=1, keepdim=True) + pixels.mean(dim=(1, 2, 3))[:, None]}


def test_texts_go_in_as_ids_and_mask_and_images_normalised():
    both = spec(
        inputs={
            "text": {"kind": "text", "tokenizer": "tokenizer.json"},
            "pixels": {"kind": "image", "size": [2, 2], "channels": "gray", "mean": [0.5], "std": [0.5]},
        }
    )
    caller = Caller(Text(), both, ["size"])
    output = caller(
        pixels=torch.full((1, 2, 2, 1), 255, dtype=torch.uint8),
        input_ids=torch.tensor([[5, 6, 7]]),
        attention_mask=torch.tensor([[1, 1, 0]]),
    )
    assert output["size"].item() == pytest.approx(12.0)


# What comes back


def test_only_the_wanted_heads_are_looked_for():
    network = nn.Module()
    network.forward = lambda x: {"size": x[:, :1]}
    two = spec({"size": {"kind": "regression"}, "other": {"kind": "regression"}})
    assert list(Caller(network, two, ["size"])(x=torch.zeros(2, 4))) == ["size"]
    with pytest.raises(
        SpecError, match=r"^head 'other' is in the spec, but the network returns no 'other'; it returns"
    ):
        Caller(network, two, ["size", "other"])(x=torch.zeros(2, 4))


HEADS = spec(
    {
        "label": {"kind": "classification", "labels": ["a", "b", "c"]},
        "tags": {"kind": "multilabel", "labels": ["a", "b"]},
        "size": {"kind": "regression"},
        "box": {"kind": "regression", "dim": 4},
        "vector": {"kind": "embedding", "dim": 2, "normalize": True},
        "raw": {"kind": "embedding", "dim": 2},
        "person": {"kind": "oneshot", "dim": 2},
        "slots": {"kind": "tokens", "labels": ["O", "B-x"]},
        "mask": {"kind": "segmentation", "labels": ["n", "y"]},
    },
    {"text": {"kind": "text", "tokenizer": "tokenizer.json"}},
).heads


@pytest.mark.parametrize(
    ("head", "shape", "becomes"),
    [
        ("label", (5, 3), (5, 3)),
        ("tags", (5, 2), (5, 2)),
        ("size", (5,), (5, 1)),
        ("size", (5, 1), (5, 1)),
        ("box", (5, 4), (5, 4)),
        ("vector", (5, 2), (5, 2)),
        ("slots", (5, 7, 2), (5, 7, 2)),
        ("mask", (5, 2, 3, 4), (5, 2, 3, 4)),
    ],
)
def test_outputs_of_the_right_shape_become_float32_of_one_form(head, shape, becomes):
    output = canonical(head, HEADS[head], torch.ones(shape, dtype=torch.float16))
    assert (output.dtype, tuple(output.shape)) == (torch.float32, becomes)


@pytest.mark.parametrize(
    ("head", "shape", "wanted"),
    [
        ("label", (5, 2), "[batch, 3]"),
        ("label", (5, 3, 1), "[batch, 3]"),
        ("box", (5,), "[batch, 4]"),
        ("person", (5, 3), "[batch, 2]"),
        ("slots", (5, 2), "[batch, sequence, 2]"),
        ("mask", (5, 3, 4, 2), "[batch, 2, height, width]"),
    ],
)
def test_outputs_of_another_shape_are_refused(head, shape, wanted):
    with pytest.raises(SpecError) as caught:
        canonical(head, HEADS[head], torch.ones(shape))
    assert str(caught.value) == (
        f"head {head!r}: the network returns shape {list(shape)}, the spec wants {wanted}: "
        "change the network's layer, or the head's labels or dim"
    )


def test_vectors_are_normalised_where_the_spec_says_so():
    three_four = torch.tensor([[3.0, 4.0]])
    assert canonical("vector", HEADS["vector"], three_four).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert canonical("person", HEADS["person"], three_four).norm().item() == pytest.approx(1)
    assert canonical("raw", HEADS["raw"], three_four).tolist() == [[3.0, 4.0]]


# Leaves


@dataclass
class Answer:
    digit: torch.Tensor


Pair = namedtuple("Pair", ["shared", "tasks"])
ONE = torch.ones(2, 1)


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ({"digit": ONE}, None),
        (Answer(ONE), None),
        ([torch.zeros(1), [torch.zeros(1), ONE]], "1.1"),
        (Pair(torch.zeros(1), {"digit": ONE}), "tasks.digit"),
        (Pair(torch.zeros(1), {"digit": ONE}), "1.digit"),
        (ONE, ""),
    ],
)
def test_a_leaf_is_found_by_name_or_by_path(output, path):
    head = {"kind": "regression"} if path is None else {"kind": "regression", "output": path}
    assert leaf(output, "digit", spec({"digit": head}).heads["digit"]) is ONE


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"digits": ONE}, "it returns {digits: float32[2, 1]}: rename the head"),
        ([ONE, (ONE, 3)], "it returns (0: float32[2, 1], 1: (0: float32[2, 1], 1: int)): rename the head"),
        ({"digit": {"logits": ONE}}, "head 'digit': digit is no tensor but {logits: float32[2, 1]}"),
    ],
)
def test_a_leaf_that_is_not_there_shows_the_tree(output, says):
    with pytest.raises(SpecError) as caught:
        leaf(output, "digit", spec({"digit": {"kind": "regression"}}).heads["digit"])
    assert says in str(caught.value)


def test_a_tree_is_described_in_one_line():
    assert describe({"a": [ONE, ONE.long()]}) == "{a: (0: float32[2, 1], 1: int64[2, 1])}"
