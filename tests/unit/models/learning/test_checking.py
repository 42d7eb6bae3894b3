import numpy as np
import pytest
import torch

from polyhead.models.data import Rows, Split
from polyhead.models.learning.checking import heads_to_train
from polyhead.models.recipe import Recipe, RecipeError
from polyhead.models.spec import ModelSpec, SpecError

SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1",
        "inputs": {
            "x": {"kind": "tensor", "shape": ["steps", 2]},
            "image": {"kind": "image", "size": [2, 3], "channels": "gray"},
            "text": {"kind": "text", "tokenizer": "tokenizer.json"},
        },
        "heads": {
            "sign": {"kind": "classification", "labels": ["minus", "plus"]},
            "far": {"kind": "regression", "unit": "m"},
            "spare": {"kind": "embedding", "dim": 3},
        },
    }
)


def rows(count=4, inputs=None, targets=None):
    return Rows(
        {
            "x": np.zeros((count, 5, 2), np.float32),
            "image": np.zeros((count, 2, 3, 1), np.uint8),
            "text": np.array(["a"] * count, dtype=object),
            **(inputs or {}),
        },
        targets
        if targets is not None
        else {"far": np.zeros((count, 1), np.float32), "sign": np.zeros(count, np.int64)},
    )


def checked(changes=None, train=None, validation=None, test=None):
    split = Split(*(rows() if part is None else part for part in (train, validation, test)))
    return heads_to_train(SPEC, split, Recipe().changed(changes or {}))


def test_heads_with_targets_are_trained_in_the_order_of_the_spec():
    assert checked() == ("sign", "far")


def test_the_recipe_may_name_some():
    assert checked({"heads": ["far"]}) == ("far",)
    assert checked({"heads": ["far", "sign"]}) == ("sign", "far")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"heads": ["spare"]}, "heads: 'spare' is no head with targets in the data (there are: sign, far)"),
        ({"heads": ["near"]}, "heads: 'near' is no head with targets in the data (there are: sign, far)"),
        ({"loss_weights": {"near": 1}}, "loss weight for 'near', which is no head (heads: far, sign, spare)"),
        ({"loss_weights": {"far": 0, "sign": 0}}, "loss_weights are 0 for every head that is trained"),
        ({"monitor": "far/accuracy"}, "monitor 'far/accuracy' is measured nowhere (there are: loss, sign/loss, "),
        ({"monitor": "near/mae"}, "far/loss, far/mae, far/r2)"),
        ({"monitor": "spare/loss"}, "monitor 'spare/loss' is measured nowhere"),
    ],
)
def test_a_recipe_that_names_what_is_not_there_is_refused(changes, says):
    with pytest.raises(RecipeError) as caught:
        checked(changes)
    assert says in str(caught.value)


@pytest.mark.parametrize("monitor", ["loss", "far/mae", "sign/loss", "sign/f1"])
def test_what_is_measured_may_be_monitored(monitor):
    assert checked({"monitor": monitor}) == ("sign", "far")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_without_a_gpu_is_refused_in_plain_words():
    with pytest.raises(
        RecipeError, match=r"^precision: 16-mixed needs a GPU, and there is none here: .*take 32, or bf16"
    ):
        checked({"precision": "16-mixed"})


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"train": rows(targets={})}, "the data has targets for none of the heads: there is nothing to learn"),
        (
            {"test": rows(targets={"far": np.zeros((4, 1), np.float32)})},
            "the test rows have no targets of 'sign': give them, missing ones marked as such",
        ),
        ({"validation": rows(0)}, "the validation part has no rows"),
        ({"train": Rows({"x": np.zeros((1, 1, 2))}, {})}, "the train rows have no input 'image' (they have x)"),
        (
            {"train": rows(targets={"near": np.zeros(4)})},
            "the train rows have targets of 'near', which is no head (sign, far, spare)",
        ),
        ({"test": rows(targets={"far": np.zeros(4)})}, "targets of 'far' are float64 [4]: give float32 [rows, 1]"),
        (
            {"train": rows(inputs={"x": np.zeros((4, 5, 3), np.float32)})},
            "input 'x' is float32 [4, 5, 3]: give float32 [rows, steps, 2]",
        ),
        ({"train": rows(inputs={"x": np.zeros((4, 5, 2))})}, "input 'x' is float64 [4, 5, 2]: give float32"),
        (
            {"train": rows(inputs={"image": np.zeros((4, 2, 3, 3), np.uint8)})},
            "input 'image' is uint8 [4, 2, 3, 3]: give uint8 [rows, 2, 3, 1]",
        ),
        ({"train": rows(inputs={"text": np.array(["a"] * 4)})}, "input 'text' is <U1 [4]: give an object array of str"),
        ({"test": rows(inputs={"text": np.array(["a", 1, "b", "c"], object)})}, "give an object array of str"),
    ],
)
def test_data_that_does_not_fit_the_spec_is_refused_before_anything_is_trained(parts, says):
    with pytest.raises(SpecError) as caught:
        checked(**parts)
    assert says in str(caught.value)
