import math

import pytest
import torch

from polyhead.models.metrics import NearestNeighbourAccuracy, computed, head_metrics, update
from polyhead.models.spec import ModelSpec, SpecError
from tests.kinds import EACH_KIND_WITHOUT_A_MODULE

NAN = math.nan


def spec_of(**content):
    inputs = {"text": {"kind": "text", "tokenizer": "t.json"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": {"h": content}}).heads["h"]


def measured(spec, *batches):
    metrics = head_metrics(spec)
    for output, target in batches:
        update(spec, metrics, torch.tensor(output), torch.tensor(target))
    return {name: pytest.approx(value.item(), abs=1e-6) for name, value in metrics.compute().items()}


CLASSES = spec_of(kind="classification", labels=["a", "b", "c"])
LABELS = spec_of(kind="multilabel", labels=["a", "b"])
NUMBER = spec_of(kind="regression")
PAIR = spec_of(kind="regression", dim=2)
VECTOR = spec_of(kind="embedding", dim=2)

# Three rows right of four with a label; the missing one is right or wrong, whatever it holds.
LOGITS = [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.0, 9.0]]
# a: 2 true positives, 1 false positive, 0 missed: F1 = 4/5.  b: 1, 0, 1: F1 = 2/3.  The macro mean is 11/15.
SIGNS = [[1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
HELD = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [NAN, 0.0]]


@pytest.mark.parametrize(
    ("spec", "output", "target", "expected"),
    [
        pytest.param(CLASSES, LOGITS, [0, 1, 2, 1, -1], {"accuracy": 0.75}, id="classification"),
        pytest.param(LABELS, SIGNS, HELD, {"f1": 11 / 15}, id="multilabel"),
        # errors 1, 0, 2 around a mean of 3 with squares 4, 0, 4: r2 = 1 - 5/8
        pytest.param(
            NUMBER, [[2.0], [3.0], [3.0], [9.0]], [[1.0], [3.0], [5.0], [NAN]], {"mae": 1.0, "r2": 0.375}, id="number"
        ),
        # columns: r2 = 1, and errors 0, 1 around a mean of 2 with squares 1, 1: r2 = 1/2
        pytest.param(
            PAIR,
            [[0.0, 1.0], [2.0, 2.0], [1.0, 7.0]],
            [[0.0, 1.0], [2.0, 3.0], [1.0, NAN]],
            {"mae": 0.25, "r2": 0.75},
            id="numbers",
        ),
        pytest.param(
            VECTOR,
            [[1.0, 0.0], [9.0, 1.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.05]],
            [0, 0, 1, 0, -1],
            {"nearest_neighbour_accuracy": 0.5},
            id="embedding",
        ),
    ],
)
def test_values_by_hand_with_missing_targets_left_out(spec, output, target, expected):
    assert measured(spec, (output, target)) == expected
    assert measured(spec, (output[:2], target[:2]), (output[2:], target[2:])) == expected  # batches do not matter


def test_a_reset_forgets_what_was_seen():
    metrics = head_metrics(CLASSES)
    update(CLASSES, metrics, torch.tensor(LOGITS), torch.tensor([1, 0, 0, 1, 0]))
    assert metrics.compute()["accuracy"] == 0
    metrics.reset()
    update(CLASSES, metrics, torch.tensor(LOGITS), torch.tensor([0, 1, 2, 0, 2]))
    assert metrics.compute()["accuracy"] == 1


@pytest.mark.parametrize(
    ("spec", "output", "target", "missing"),
    [
        (CLASSES, [[1.0, 0.0, 0.0]] * 2, [0, 1], [-1, -1]),
        (LABELS, [[1.0, -1.0]] * 2, [[1.0, 1.0], [1.0, 0.0]], [[NAN, NAN]] * 2),
        (NUMBER, [[1.0], [2.0]], [[1.5], [2.5]], [[NAN], [NAN]]),
        (VECTOR, [[1.0, 0.0], [0.0, 1.0]], [0, 0], [-1, -1]),
    ],
    ids=["classification", "multilabel", "regression", "embedding"],
)
def test_a_batch_of_missing_targets_changes_nothing(spec, output, target, missing):
    assert measured(spec, (output, missing), (output, target)) == measured(spec, (output, target))


@EACH_KIND_WITHOUT_A_MODULE
def test_a_kind_without_metrics_is_refused(content):
    with pytest.raises(SpecError) as caught:
        head_metrics(spec_of(**content))
    assert str(caught.value) == f"no metrics for heads of kind {content['kind']!r}"


# Too few targets


@pytest.mark.parametrize(
    ("spec", "output", "target", "expected"),
    [
        pytest.param(NUMBER, [[1.0], [2.0], [3.0]], [[NAN]] * 3, {}, id="number, none"),
        pytest.param(NUMBER, [[1.0], [2.0], [3.0]], [[NAN], [2.5], [NAN]], {"mae": 0.5}, id="number, one"),
        pytest.param(NUMBER, [[1.0], [2.0], [3.0]], [[1.0], [3.0], [NAN]], {"mae": 0.5, "r2": 0.5}, id="number, two"),
        pytest.param(PAIR, [[1.0, 2.0], [3.0, 4.0]], [[NAN, 2.0], [3.0, NAN]], {}, id="numbers, none whole"),
        pytest.param(PAIR, [[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.0], [3.0, NAN]], {"mae": 0.5}, id="numbers, one whole"),
        pytest.param(CLASSES, [[1.0, 0.0, 0.0]] * 2, [-1, -1], {}, id="classification, none"),
        pytest.param(CLASSES, [[1.0, 0.0, 0.0]] * 2, [-1, 0], {"accuracy": 1.0}, id="classification, one"),
        pytest.param(VECTOR, [[1.0, 0.0]] * 2, [-1, -1], {}, id="embedding, none"),
        pytest.param(VECTOR, [[1.0, 0.0]] * 2, [-1, 0], {"nearest_neighbour_accuracy": 0.0}, id="embedding, one"),
    ],
)
def test_metrics_with_too_few_targets_are_left_out(spec, output, target, expected):
    metrics = head_metrics(spec)
    update(spec, metrics, torch.tensor(output), torch.tensor(target))
    assert computed(metrics) == pytest.approx(expected)
    assert all(type(value) is float for value in computed(metrics).values())


@pytest.mark.parametrize("spec", [CLASSES, LABELS, NUMBER, PAIR, VECTOR])
def test_metrics_that_saw_nothing_are_left_out(spec):
    assert computed(head_metrics(spec)) == {}


def test_computed_gives_what_compute_gives():
    metrics = head_metrics(NUMBER)
    update(NUMBER, metrics, torch.tensor([[2.0], [3.0], [3.0]]), torch.tensor([[1.0], [3.0], [5.0]]))
    assert computed(metrics) == pytest.approx({"mae": 1.0, "r2": 0.375})
    metrics.reset()
    assert computed(metrics) == {}


# Thresholds

# Chances of a: 0.9, 0.6, 0.4, 0.2 with a holding in rows 0, 1, 2; of b: 0.9, 0.7, 0.3, 0.1, holding in row 0.
CHANCES = [[0.9, 0.9], [0.6, 0.7], [0.4, 0.3], [0.2, 0.1]]
HOLDING = [[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("threshold", "a", "b"),
    [
        (0.5, 4 / 5, 2 / 3),  # a: 2 right, 1 missed.  b: 1 right, 1 too many.
        (0.25, 1.0, 1 / 2),  # a: 3 right.  b: 1 right, 2 too many.
        (0.8, 1 / 2, 1.0),  # a: 1 right, 2 missed.  b: 1 right.
        ([0.25, 0.8], 1.0, 1.0),
        ([0.8, 0.25], 1 / 2, 1 / 2),
        ([0, 1], 6 / 7, 0.0),  # a: 3 right, 1 too many.  b: 1 missed.
    ],
)
def test_f1_cuts_at_the_heads_thresholds(threshold, a, b):
    spec = spec_of(kind="multilabel", labels=["a", "b"], threshold=threshold)
    logits = torch.tensor(CHANCES).logit().tolist()
    assert measured(spec, (logits, HOLDING)) == {"f1": (a + b) / 2}


def test_a_chance_on_the_threshold_holds():
    assert measured(LABELS, ([[0.0, 0.0]], [[1.0, 1.0]])) == {"f1": 1.0}


def test_a_multilabel_head_may_have_one_label():
    assert measured(spec_of(kind="multilabel", labels=["a"]), ([[1.0], [-1.0]], [[1.0], [1.0]])) == {"f1": 2 / 3}


# Nearest neighbour


@pytest.mark.parametrize(
    ("vectors", "classes", "expected"),
    [
        ([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], [0, 0, 1, 1], 1.0),
        ([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], [0, 1, 0, 1], 0.0),
        # By angle 0, 10, 30 and 90 degrees: the neighbours are 1, 0, 1 and 2.
        ([[1.0, 0.0], [0.9848, 0.1736], [0.866, 0.5], [0.0, 1.0]], [0, 0, 0, 1], 0.75),
    ],
)
def test_nearest_neighbour_accuracy_by_hand(vectors, classes, expected):
    metric = NearestNeighbourAccuracy()
    metric.update(torch.tensor(vectors), torch.tensor(classes))
    assert metric.compute().item() == expected


def test_nearest_is_by_angle_and_not_by_distance():
    metric = NearestNeighbourAccuracy()
    vectors = torch.tensor([[1.0, 0.0], [100.0, 1.0], [0.9, 0.5], [0.09, 0.05]])
    metric.update(vectors, torch.tensor([0, 0, 1, 1]))
    assert metric.compute().item() == 1.0


def test_a_row_is_not_its_own_neighbour_even_where_all_others_point_away():
    metric = NearestNeighbourAccuracy()
    metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
    assert metric.compute().item() == 0.0


def test_a_single_row_has_no_neighbour():
    metric = NearestNeighbourAccuracy()
    metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([3]))
    assert metric.compute().item() == 0.0
