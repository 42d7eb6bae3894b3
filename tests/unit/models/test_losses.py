import math

import numpy as np
import pytest
import torch

from polyhead.models.heads import Logits, Regression
from polyhead.models.losses import (
    MISSING_CLASS,
    MultiTaskLoss,
    classification_loss,
    multilabel_loss,
    regression_loss,
    supervised_contrastive_loss,
)
from polyhead.models.spec import ModelSpec, SpecError
from tests.kinds import EACH_KIND_WITHOUT_A_MODULE

NAN = math.nan
CLASSES, ABSENT = torch.tensor([0, 2, 1, 0]), torch.full((4,), MISSING_CLASS)
NUMBERS, UNKNOWN = torch.tensor([[0.0, 1.0, 1.0]] * 4), torch.full((4, 3), NAN)

# Each loss with targets that are known, and targets that are all missing, for outputs [4, 3].
LOSSES = [
    pytest.param(classification_loss, CLASSES, ABSENT, id="classification"),
    pytest.param(multilabel_loss, NUMBERS, UNKNOWN, id="multilabel"),
    pytest.param(regression_loss, NUMBERS, UNKNOWN, id="regression"),
    pytest.param(supervised_contrastive_loss, CLASSES, ABSENT, id="contrastive"),
]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heads_of(**heads):
    inputs = {"text": {"kind": "text", "tokenizer": "t.json"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads}).heads


def gradient(loss, outputs, target):
    outputs = outputs.clone().requires_grad_()
    loss(outputs, target).backward()
    return outputs.grad


# Values


def test_classification_is_the_mean_negative_log_probability_of_the_label():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    total = np.exp([1.0, 2.0, 3.0]).sum()
    expected = (math.log(3) - math.log(math.exp(2) / total)) / 2
    assert classification_loss(logits, torch.tensor([2, 1])).item() == pytest.approx(expected, rel=1e-6)


def test_multilabel_is_the_mean_binary_cross_entropy_over_all_labels():
    logits, target = [[0.0, 2.0], [-1.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]]
    chance = 1 / (1 + np.exp(-np.array(logits)))
    expected = -np.where(np.array(target) == 1, np.log(chance), np.log(1 - chance)).mean()
    assert multilabel_loss(torch.tensor(logits), torch.tensor(target)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("error", "scale", "expected"),
    [(0.5, 1.0, 0.125), (-0.5, 1.0, 0.125), (3.0, 1.0, 2.5), (3.0, 6.0, 0.125), (0.5, 0.1, 4.5), (0.0, 1.0, 0.0)],
)
def test_regression_is_the_huber_loss_in_units_of_the_scale(error, scale, expected):
    target = torch.tensor([[7.0]])
    assert regression_loss(target + error, target, scale).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 60.0, 1e4])
def test_regression_does_not_depend_on_the_unit(factor):
    values, target = noise(8, 2), noise(8, 2, seed=1)
    expected = regression_loss(values, target, torch.tensor([0.7]))
    got = regression_loss(factor * values, factor * target, torch.tensor([factor * 0.7]))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


def khosla(vectors, target, temperature):
    """L_out, equation 2 of Khosla et al. 2020, the mean over anchors that have a positive; by loops."""
    z = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    per_anchor = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if target[p] == target[i]]
        if not positives:
            continue
        total = sum(math.exp(z[i] @ z[a] / temperature) for a in others)
        shares = [math.log(math.exp(z[i] @ z[p] / temperature) / total) for p in positives]
        per_anchor.append(-sum(shares) / len(positives))
    return sum(per_anchor) / len(per_anchor)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
@pytest.mark.parametrize("target", [[0, 1, 0, 1, 0, 2], [0, 0, 0, 0, 0, 0], [5, 5, 1, 2, 3, 4]])
def test_contrastive_is_equation_2_of_its_paper(target, temperature):
    vectors = noise(6, 4).double()
    got = supervised_contrastive_loss(vectors, torch.tensor(target), temperature).item()
    assert got == pytest.approx(khosla(vectors.numpy(), target, temperature), rel=1e-9)


def test_contrastive_has_temperature_a_tenth_by_default():
    vectors, target = noise(6, 4).double(), torch.tensor([0, 1, 0, 1, 0, 2])
    expected = khosla(vectors.numpy(), target.tolist(), 0.1)
    assert supervised_contrastive_loss(vectors, target).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [2, 3, 9])
def test_contrastive_of_equal_vectors_of_one_class_is_the_log_of_the_others(rows):
    loss = supervised_contrastive_loss(torch.ones(rows, 4), torch.zeros(rows, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(rows - 1), abs=1e-5)


def test_contrastive_does_not_depend_on_the_vectors_lengths():
    vectors, lengths = noise(6, 4), torch.tensor([[0.1], [1.0], [2.0], [5.0], [9.0], [100.0]])
    target = torch.tensor([0, 1, 0, 1, 0, 1])
    torch.testing.assert_close(
        supervised_contrastive_loss(vectors * lengths, target), supervised_contrastive_loss(vectors, target)
    )


def test_contrastive_is_lower_where_classes_stand_apart():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    apart = supervised_contrastive_loss(vectors, torch.tensor([0, 0, 1, 1]))
    mixed = supervised_contrastive_loss(vectors, torch.tensor([0, 1, 0, 1]))
    assert apart < 0.01 < 5 < mixed


# Missing targets


@pytest.mark.parametrize(("loss", "known", "missing"), LOSSES)
def test_a_missing_row_changes_nothing_and_gets_no_gradient(loss, known, missing):
    outputs = noise(4, 3)
    some = torch.stack([known[0], missing[1], known[2], known[3]])
    torch.testing.assert_close(loss(outputs, some), loss(outputs[[0, 2, 3]], known[[0, 2, 3]]))
    grad = gradient(loss, outputs, some)
    torch.testing.assert_close(grad[[0, 2, 3]], gradient(loss, outputs[[0, 2, 3]], known[[0, 2, 3]]))
    assert grad[1].tolist() == [0.0, 0.0, 0.0]
    assert grad.abs().sum() > 0


@pytest.mark.parametrize(("loss", "known", "missing"), LOSSES)
def test_a_batch_of_missing_targets_has_loss_0_and_gradient_0(loss, known, missing):
    assert loss(noise(4, 3), known) > 0
    assert loss(noise(4, 3), missing).item() == 0.0
    assert torch.equal(gradient(loss, noise(4, 3), missing), torch.zeros(4, 3))


@pytest.mark.parametrize("loss", [multilabel_loss, regression_loss])
def test_a_single_missing_value_is_left_out_of_the_mean(loss):
    outputs, target = noise(2, 3), torch.tensor([[1.0, NAN, 0.0], [0.0, 1.0, NAN]])
    known = [(0, 0), (0, 2), (1, 0), (1, 1)]
    alone = [loss(outputs[i : i + 1, j : j + 1], target[i : i + 1, j : j + 1]) for i, j in known]
    torch.testing.assert_close(loss(outputs, target), torch.stack(alone).mean())
    grad = gradient(loss, outputs, target)
    assert (grad == 0).nonzero().tolist() == [[0, 1], [1, 2]]
    assert grad.isfinite().all()


@pytest.mark.parametrize("target", [[0, 1, 2, 3], [0, -1, -1, -1]], ids=["every class once", "one row with a class"])
def test_contrastive_of_rows_without_a_partner_is_0(target):
    assert supervised_contrastive_loss(noise(4, 3), torch.tensor(target)).item() == 0.0
    assert torch.equal(gradient(supervised_contrastive_loss, noise(4, 3), torch.tensor(target)), torch.zeros(4, 3))


def test_contrastive_does_not_take_missing_for_a_class():
    vectors = noise(6, 3)
    got = supervised_contrastive_loss(vectors, torch.tensor([0, 0, -1, -1, 1, 1]))
    torch.testing.assert_close(got, supervised_contrastive_loss(vectors[[0, 1, 4, 5]], torch.tensor([0, 0, 1, 1])))


@pytest.mark.parametrize(("values", "target"), [((4,), (4, 1)), ((4, 1), (4,)), ((4,), (4,))])
def test_regression_takes_a_row_of_one_value_with_or_without_its_dimension(values, target):
    # errors 1, 0, 2 and a missing one: (0.5 + 0 + 1.5) / 3
    got = torch.tensor([2.0, 3.0, 3.0, 9.0]).reshape(values).requires_grad_()
    loss = regression_loss(got, torch.tensor([1.0, 3.0, 5.0, NAN]).reshape(target))
    assert loss.item() == pytest.approx(2 / 3, rel=1e-6)
    loss.backward()
    assert got.grad.flatten().tolist() == [pytest.approx(1 / 3), 0.0, pytest.approx(-1 / 3), 0.0]


def test_regression_of_other_shapes_is_refused():
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        regression_loss(noise(4, 2), noise(4, 1))


# The sum over heads

HEADS = heads_of(
    cls={"kind": "classification", "labels": ["a", "b", "c"]},
    multi={"kind": "multilabel", "labels": ["a", "b", "c"]},
    number={"kind": "regression", "dim": 3},
    vector={"kind": "embedding", "dim": 3},
)
TARGETS = {"cls": CLASSES, "multi": NUMBERS, "number": NUMBERS, "vector": CLASSES}
OUTPUTS = {name: noise(4, 3, seed=seed) for seed, name in enumerate(HEADS)}
ALONE = {
    "cls": classification_loss(OUTPUTS["cls"], CLASSES),
    "multi": multilabel_loss(OUTPUTS["multi"], NUMBERS),
    "number": regression_loss(OUTPUTS["number"], NUMBERS),
    "vector": supervised_contrastive_loss(OUTPUTS["vector"], CLASSES),
}


@pytest.mark.parametrize(
    "weights", [{}, {"cls": 2.0}, {"cls": 0.0, "vector": 0.2, "number": 10.0}, dict.fromkeys(HEADS, 3.0)]
)
def test_the_total_is_the_weighted_sum_and_each_heads_loss_stays_unweighted(weights):
    total, losses = MultiTaskLoss(HEADS, {}, weights)(OUTPUTS, TARGETS)
    assert {name: loss.item() for name, loss in losses.items()} == {n: a.item() for n, a in ALONE.items()}
    expected = sum(weights.get(name, 1.0) * loss.item() for name, loss in ALONE.items())
    assert total.item() == pytest.approx(expected, rel=1e-6)


def test_a_head_without_targets_is_left_out():
    total, losses = MultiTaskLoss(HEADS, {}, {})(OUTPUTS, {"cls": CLASSES})
    assert list(losses) == ["cls"]
    assert total.item() == pytest.approx(ALONE["cls"].item())


def test_a_head_whose_targets_are_all_missing_adds_nothing():
    total, losses = MultiTaskLoss(HEADS, {}, {})(OUTPUTS, {"cls": CLASSES, "number": UNKNOWN})
    assert losses["number"].item() == 0.0
    assert total.item() == pytest.approx(ALONE["cls"].item())


def test_a_regression_module_brings_the_scale_of_its_targets():
    modules = {"number": Regression(4, dim=3, location=5.0, scale=20.0), "cls": Logits(4, 3)}
    _, losses = MultiTaskLoss(HEADS, modules, {})(OUTPUTS, {"number": NUMBERS})
    torch.testing.assert_close(losses["number"], regression_loss(OUTPUTS["number"], NUMBERS, 20.0))
    assert losses["number"] < ALONE["number"] / 10


def test_a_head_of_weight_0_gets_no_gradient():
    outputs = {name: output.clone().requires_grad_() for name, output in OUTPUTS.items()}
    MultiTaskLoss(HEADS, {}, {"cls": 0.0})(outputs, TARGETS)[0].backward()
    assert torch.equal(outputs["cls"].grad, torch.zeros(4, 3))
    assert outputs["multi"].grad.abs().sum() > 0


def test_data_without_any_target_is_refused():
    with pytest.raises(SpecError) as caught:
        MultiTaskLoss(HEADS, {}, {})(OUTPUTS, {})
    assert str(caught.value) == "the data has targets for none of the heads: there is nothing to learn"


def test_a_weight_for_no_head_is_refused():
    with pytest.raises(SpecError) as caught:
        MultiTaskLoss(HEADS, {}, {"cls": 1.0, "vektor": 0.2})
    assert str(caught.value) == "loss weight for 'vektor', which is no head (heads: cls, multi, number, vector)"


@EACH_KIND_WITHOUT_A_MODULE
def test_a_kind_without_a_loss_is_refused(content):
    with pytest.raises(SpecError) as caught:
        MultiTaskLoss(heads_of(h=content), {}, {})({"h": noise(4, 3)}, {"h": CLASSES})
    assert str(caught.value) == f"head 'h': no loss for kind {content['kind']!r}"
