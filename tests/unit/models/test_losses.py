import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from polyhead.models.heads import Attentive, Logits, Regression
from polyhead.models.losses import (
    MAX_POSITIVE_WEIGHT,
    MISSING_CLASS,
    HeadLosses,
    class_weights,
    classification_loss,
    known,
    multilabel_loss,
    prototypical_loss,
    regression_loss,
    segmentation_loss,
    supervised_contrastive_loss,
    tokens_loss,
)
from polyhead.models.spec import ModelSpec, SpecError

NAN = math.nan
CLASSES, ABSENT = torch.tensor([0, 2, 1, 0]), torch.full((4,), MISSING_CLASS)
NUMBERS, UNKNOWN = torch.tensor([[0.0, 1.0, 1.0]] * 4), torch.full((4, 3), NAN)

# Each loss with targets that are known, and targets that are all missing, for outputs [4, 3].
LOSSES = [
    pytest.param(classification_loss, CLASSES, ABSENT, id="classification"),
    pytest.param(multilabel_loss, NUMBERS, UNKNOWN, id="multilabel"),
    pytest.param(regression_loss, NUMBERS, UNKNOWN, id="regression"),
    pytest.param(supervised_contrastive_loss, CLASSES, ABSENT, id="contrastive"),
    pytest.param(prototypical_loss, CLASSES, ABSENT, id="prototypical"),
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


WEIGHT = torch.tensor([0.5, 3.0, 1.5])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("target", [[0, 2, 1, 0, 2], [0, -1, 1, -1, 2]])
def test_classification_with_weights_and_smoothing_is_torchs(weight, smoothing, target):
    logits, target = noise(5, 3), torch.tensor(target)
    expected = functional.cross_entropy(logits, target, weight, ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(classification_loss(logits, target, weight, smoothing), expected)


def test_smoothing_punishes_certainty():
    sure, target = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([0])
    assert classification_loss(sure, target).item() == pytest.approx(math.log(1 + 2 * math.exp(-9)), rel=1e-2)
    # a tenth is spread over all three, so a fifteenth of the target asks for labels of log-probability -9
    assert classification_loss(sure, target, None, 0.1).item() == pytest.approx(9 * 2 / 30, rel=1e-3)


def test_weights_of_a_multilabel_head_are_of_the_positives():
    logits, target = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, NAN]])
    # every known label costs log 2, the one that holds three times
    assert multilabel_loss(logits, target, torch.tensor([3.0, 7.0])).item() == pytest.approx(5 * math.log(2) / 3)


def test_tokens_are_classified_one_by_one():
    logits, target = noise(2, 4, 3), torch.tensor([[-1, 0, 2, -1], [-1, 1, -1, -1]])
    kept = [(0, 1), (0, 2), (1, 1)]
    rows = torch.stack([logits[place] for place in kept])
    for weight in (None, WEIGHT):
        expected = classification_loss(rows, torch.tensor([0, 2, 1]), weight)
        torch.testing.assert_close(tokens_loss(logits, target, weight), expected)


def test_longer_padding_does_not_change_the_tokens_loss():
    logits, target = noise(2, 4, 3), torch.tensor([[0, 1, 2, -1], [1, -1, -1, -1]])
    longer = torch.cat([logits, 50 * noise(2, 3, 3, seed=1)], dim=1)
    padded = torch.cat([target, torch.full((2, 3), -1)], dim=1)
    torch.testing.assert_close(tokens_loss(longer, padded), tokens_loss(logits, target))


REGION = torch.tensor([[[0, 1], [2, -1]], [[0, 0], [-1, 1]]])


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_pixels_are_classified_one_by_one(weight):
    logits = noise(2, 3, 2, 2)
    expected = functional.cross_entropy(logits, REGION, weight, ignore_index=-1)
    torch.testing.assert_close(segmentation_loss(logits, REGION, weight), expected)


def test_dice_is_one_minus_the_soft_overlap_of_the_labels_that_occur():
    logits, target = noise(2, 4, 2, 2), REGION  # label 3 occurs nowhere
    chance = logits.softmax(dim=1).movedim(1, -1)[target >= 0].numpy()
    truth = np.eye(4)[target[target >= 0]]
    overlap = [2 * (p * g).sum() / ((p**2).sum() + (g**2).sum()) for p, g in zip(chance.T, truth.T, strict=True)]
    expected = np.mean([1 - value for value in overlap[:3]])
    got = segmentation_loss(logits, target, dice=2.0) - segmentation_loss(logits, target)
    assert got.item() == pytest.approx(2 * expected, rel=1e-5)


def test_dice_of_a_perfect_map_is_0_and_of_a_wrong_one_1():
    perfect = 100 * functional.one_hot(REGION.clamp(min=0), 3).movedim(-1, 1).float()
    assert segmentation_loss(perfect, REGION, dice=1.0).item() == pytest.approx(0, abs=1e-6)
    wrong = perfect.roll(1, dims=1)
    assert segmentation_loss(wrong, REGION, dice=1.0).item() == pytest.approx(100 + 1, rel=1e-6)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="pixels") as caught:
        segmentation_loss(noise(2, 3, 4, 6), REGION)
    assert str(caught.value) == "logits of (4, 6) pixels for targets of (2, 2): give the decoder size=(2, 2)"


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_missing_pixels_get_no_gradient(dice):
    def loss(logits, target):
        return segmentation_loss(logits, target, dice=dice)

    grad = gradient(loss, noise(2, 3, 2, 2), REGION)
    assert ((grad.abs().sum(dim=1) > 0) == (REGION >= 0)).all()
    missing = torch.full_like(REGION, -1)
    assert loss(noise(2, 3, 2, 2), missing).item() == 0.0
    assert torch.equal(gradient(loss, noise(2, 3, 2, 2), missing), torch.zeros(2, 3, 2, 2))


# Prototypes


def snell(vectors, target, scale):
    """The mean over rows of -log p(own class), equation 2 of Snell et al. 2017, each row left out in turn; by loops."""
    per_row = []
    for i, own in enumerate(target):
        rows = {c: [j for j, other in enumerate(target) if other == c and j != i] for c in set(target)}
        if not rows[own]:
            continue
        distance = {c: ((vectors[i] - vectors[j].mean(axis=0)) ** 2).sum() for c, j in rows.items()}
        total = sum(math.exp(-scale * d) for d in distance.values())
        per_row.append(scale * distance[own] + math.log(total))
    return sum(per_row) / len(per_row) if per_row else 0.0


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("target", [[0, 1, 0, 1, 0, 2], [0, 0, 0, 0, 0, 0], [5, 5, 1, 2, 3, 4], [9, 9, 7, 7, 9, 7]])
def test_prototypical_is_equation_2_of_its_paper_with_each_row_left_out(target, scale):
    vectors = noise(6, 4).double()
    got = prototypical_loss(vectors, torch.tensor(target), scale).item()
    assert got == pytest.approx(snell(vectors.numpy(), target, scale), rel=1e-9)


def test_prototypical_does_not_depend_on_where_the_origin_is():
    vectors, target = noise(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    expected = prototypical_loss(vectors.double(), target, 10.0).float()
    torch.testing.assert_close(prototypical_loss(vectors + 100, target, 10.0), expected, rtol=1e-3, atol=1e-4)


def test_prototypical_has_the_gradient_of_its_value():
    target = torch.tensor([0, 1, 0, -1, 1, 2])
    vectors = noise(6, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: prototypical_loss(v, target, 2.0), vectors)


def test_prototypical_is_lower_where_classes_stand_apart():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    apart = prototypical_loss(vectors, torch.tensor([0, 0, 1, 1]), 10.0)
    mixed = prototypical_loss(vectors, torch.tensor([0, 1, 0, 1]), 10.0)
    assert apart < 0.01 < 2 < mixed


def test_equal_vectors_have_a_finite_loss_and_gradient():
    target = torch.tensor([0, 0, 1, 1])
    assert prototypical_loss(torch.ones(4, 3), target).item() == pytest.approx(math.log(2))
    assert gradient(prototypical_loss, torch.ones(4, 3), target).isfinite().all()


@pytest.mark.parametrize("target", [[0, 1, 2, 3], [0, -1, -1, -1]], ids=["every class once", "one row with a class"])
def test_prototypical_of_rows_without_a_partner_is_0(target):
    assert prototypical_loss(noise(4, 3), torch.tensor(target)).item() == 0.0
    assert torch.equal(gradient(prototypical_loss, noise(4, 3), torch.tensor(target)), torch.zeros(4, 3))


# Weights per class


@pytest.mark.parametrize("target", [[0, 0, 0, 1, 2, 2], [2, 2, 0, 0, 0, 0, 0, 1], [0, 1, 2]])
def test_class_weights_are_scikit_learns_balanced_and_their_mean_is_1(target):
    weights = class_weights(torch.tensor(target), 3)
    assert weights.tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=np.array(target)))
    assert weights[target].mean().item() == pytest.approx(1)


def test_class_weights_leave_out_missing_targets_and_take_any_shape():
    flat = class_weights(torch.tensor([0, 0, 2]), 4)
    assert flat.tolist() == [0.75, 1.0, 1.5, 1.0]  # labels 1 and 3 do not occur
    assert torch.equal(class_weights(torch.tensor([[0, -1], [2, 0]]), 4), flat)
    assert torch.equal(class_weights(torch.tensor([[[0, -1], [2, -1]], [[-1, 0], [-1, -1]]]), 4), flat)


def test_class_weights_without_a_target_are_1():
    assert class_weights(torch.tensor([-1, -1]), 3).tolist() == [1.0, 1.0, 1.0]
    assert class_weights(torch.full((4, 3), NAN), 3).tolist() == [1.0, 1.0, 1.0]


def test_positive_weights_make_both_sides_weigh_the_same():
    held = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [NAN, 1.0]])
    weights = class_weights(held, 2)
    assert weights.tolist() == [3.0, 0.25]
    assert (weights * (held == 1).sum(dim=0) == (held == 0).sum(dim=0)).all()


def test_positive_weights_are_bounded_and_1_where_a_side_is_missing():
    held = torch.zeros(1000, 4)
    held[0, 0] = 1
    held[1:, 1] = 1
    held[:, 2] = 1
    assert class_weights(held, 4).tolist() == pytest.approx([MAX_POSITIVE_WEIGHT, 1 / MAX_POSITIVE_WEIGHT, 1.0, 1.0])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 3]), "targets lie between 0 and 3: those of 3 labels are 0 to 2"),
        (torch.tensor([-2, 1]), "targets lie between -2 and 1: those of 3 labels are 0 to 2"),
        (torch.zeros(4, 2), "class weights of 3 labels need targets [rows, 3], got [4, 2]"),
    ],
)
def test_class_weights_of_other_targets_are_refused(target, message):
    with pytest.raises(SpecError) as caught:
        class_weights(target, 3)
    assert str(caught.value) == message


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


# Every head's loss

PLACES = torch.tensor([[0, -1, 2], [1, -1, -1], [-1, -1, -1], [2, 2, 0]])
PIXELS = torch.tensor([[[0, 1]], [[2, -1]], [[-1, -1]], [[1, 1]]])
HEADS = heads_of(
    cls={"kind": "classification", "labels": ["a", "b", "c"]},
    multi={"kind": "multilabel", "labels": ["a", "b", "c"]},
    number={"kind": "regression", "dim": 3},
    vector={"kind": "embedding", "dim": 3},
    word={"kind": "tokens", "labels": ["O", "B-a", "I-a"]},
    region={"kind": "segmentation", "labels": ["a", "b", "c"]},
    person={"kind": "oneshot", "dim": 3, "scale": 4.0},
)
TARGETS = {
    "cls": CLASSES,
    "multi": NUMBERS,
    "number": NUMBERS,
    "vector": CLASSES,
    "word": PLACES,
    "region": PIXELS,
    "person": CLASSES,
}
SHAPES = {"word": (4, 3, 3), "region": (4, 3, 1, 2)}
OUTPUTS = {name: noise(*SHAPES.get(name, (4, 3)), seed=seed) for seed, name in enumerate(HEADS)}
ALONE = {
    "cls": classification_loss(OUTPUTS["cls"], CLASSES),
    "multi": multilabel_loss(OUTPUTS["multi"], NUMBERS),
    "number": regression_loss(OUTPUTS["number"], NUMBERS),
    "vector": supervised_contrastive_loss(OUTPUTS["vector"], CLASSES),
    "word": tokens_loss(OUTPUTS["word"], PLACES),
    "region": segmentation_loss(OUTPUTS["region"], PIXELS),
    "person": prototypical_loss(OUTPUTS["person"], CLASSES, 4.0),
}
MISSING = {name: torch.full_like(target, NAN if target.is_floating_point() else -1) for name, target in TARGETS.items()}


def test_every_kind_has_its_loss():
    assert {spec.kind for spec in HEADS.values()} == {
        *("classification", "multilabel", "regression", "embedding", "tokens", "segmentation", "oneshot")
    }
    losses = HeadLosses(HEADS, {})(OUTPUTS, TARGETS)
    assert {name: loss.item() for name, loss in losses.items()} == {name: loss.item() for name, loss in ALONE.items()}
    assert all(loss > 0 for loss in losses.values())


@pytest.mark.parametrize("name", HEADS)
def test_a_head_without_targets_is_left_out(name):
    losses = HeadLosses(HEADS, {})(OUTPUTS, {name: TARGETS[name]})
    assert list(losses) == [name]
    assert losses[name].item() == ALONE[name].item()
    assert HeadLosses(HEADS, {})(OUTPUTS, {}) == {}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_whose_targets_are_all_missing_has_loss_0_and_gradient_0(name):
    output = OUTPUTS[name].clone().requires_grad_()
    loss = HeadLosses(HEADS, {}, dice=1.0)({name: output}, {name: MISSING[name]})[name]
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(output.grad, torch.zeros_like(output))


@pytest.mark.parametrize(
    ("name", "count"),
    [("cls", 4), ("multi", 12), ("number", 12), ("vector", 4), ("word", 6), ("region", 5), ("person", 4)],
)
def test_the_number_of_known_targets(name, count):
    assert known(HEADS[name], TARGETS[name]).item() == count
    assert known(HEADS[name], MISSING[name]).item() == 0
    assert known(HEADS[name], TARGETS[name]).dtype == torch.int64


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_regression_module_brings_the_scale_of_its_targets(wrapped):
    regression = Regression(4, dim=3, location=5.0, scale=[20.0, 30.0, 40.0])
    modules = {"number": Attentive(4, regression) if wrapped else regression, "cls": Logits(4, 3)}
    losses = HeadLosses(HEADS, modules)(OUTPUTS, {"number": NUMBERS, "cls": CLASSES})
    expected = regression_loss(OUTPUTS["number"], NUMBERS, torch.tensor([20.0, 30.0, 40.0]))
    torch.testing.assert_close(losses["number"], expected)
    assert losses["number"] < ALONE["number"] / 10
    assert losses["cls"].item() == ALONE["cls"].item()


def test_losses_hold_no_parameters_of_the_network_and_nothing_that_is_saved():
    losses = HeadLosses(HEADS, {"number": Regression(4, dim=3)}, {"cls": WEIGHT})
    assert list(losses.parameters()) == []
    assert losses.state_dict() == {}


def test_class_weights_reach_the_heads_they_name():
    plain = HeadLosses(HEADS, {})(OUTPUTS, TARGETS)
    weights = {"cls": WEIGHT, "multi": WEIGHT, "word": WEIGHT, "region": WEIGHT}
    weighted = HeadLosses(HEADS, {}, weights)(OUTPUTS, TARGETS)
    assert {name for name in HEADS if plain[name].item() != weighted[name].item()} == set(weights)
    torch.testing.assert_close(weighted["multi"], multilabel_loss(OUTPUTS["multi"], NUMBERS, WEIGHT))
    torch.testing.assert_close(weighted["region"], segmentation_loss(OUTPUTS["region"], PIXELS, WEIGHT))


def test_weights_of_1_change_nothing():
    ones = {name: torch.ones(3) for name in ("cls", "multi", "word", "region")}
    for name, loss in HeadLosses(HEADS, {}, ones)(OUTPUTS, TARGETS).items():
        torch.testing.assert_close(loss, ALONE[name])


def test_label_smoothing_is_of_classification_and_dice_of_segmentation():
    changed = HeadLosses(HEADS, {}, label_smoothing=0.1, dice=1.0)(OUTPUTS, TARGETS)
    assert {name for name in HEADS if changed[name].item() != ALONE[name].item()} == {"cls", "region"}
    torch.testing.assert_close(changed["cls"], classification_loss(OUTPUTS["cls"], CLASSES, None, 0.1))
    torch.testing.assert_close(changed["region"], segmentation_loss(OUTPUTS["region"], PIXELS, dice=1.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_precision_outputs_are_computed_in_single(dtype):
    outputs = {name: output.to(dtype) for name, output in OUTPUTS.items()}
    expected = HeadLosses(HEADS, {})({name: output.float() for name, output in outputs.items()}, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = HeadLosses(HEADS, {})(outputs, TARGETS)
    assert {name: (loss.dtype, loss.item()) for name, loss in got.items()} == {
        name: (torch.float32, loss.item()) for name, loss in expected.items()
    }


def test_a_head_may_have_any_name_of_a_spec():
    heads = heads_of(**{"a-b": {"kind": "classification", "labels": ["x", "y", "z"]}})
    loss = HeadLosses(heads, {}, {"a-b": WEIGHT})({"a-b": OUTPUTS["cls"]}, {"a-b": CLASSES})["a-b"]
    torch.testing.assert_close(loss, classification_loss(OUTPUTS["cls"], CLASSES, WEIGHT))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"klass": WEIGHT},
            "class weights for 'klass', which is no head (heads: cls, multi, number, person, region, vector, word)",
        ),
        ({"number": WEIGHT}, "class weights for head 'number' of kind regression, which has no labels"),
        ({"cls": torch.ones(2)}, "class weights [2] for head 'cls' of 3 labels"),
    ],
)
def test_class_weights_that_fit_no_head_are_refused(weights, message):
    with pytest.raises(SpecError) as caught:
        HeadLosses(HEADS, {}, weights)
    assert str(caught.value) == message
