import math

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, r2_score

from polyhead.models.metrics import (
    NearestNeighbourAccuracy,
    NearestPrototypeAccuracy,
    SpanF1,
    computed,
    head_metrics,
    update,
)
from polyhead.models.spec import ModelSpec

NAN = math.nan


def spec_of(**content):
    inputs = {"text": {"kind": "text", "tokenizer": "t.json"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": {"h": content}}).heads["h"]


def measured(spec, *batches):
    metrics = head_metrics(spec)
    for output, target in batches:
        update(spec, metrics, torch.tensor(output), torch.tensor(target))
    return {name: pytest.approx(value, abs=1e-6) for name, value in computed(metrics).items()}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


CLASSES = spec_of(kind="classification", labels=["a", "b", "c"])
LABELS = spec_of(kind="multilabel", labels=["a", "b"])
NUMBER = spec_of(kind="regression")
PAIR = spec_of(kind="regression", dim=2)
VECTOR = spec_of(kind="embedding", dim=2)
WORDS = spec_of(kind="tokens", labels=["O", "B-room", "I-room", "B-time"])
REGION = spec_of(kind="segmentation", labels=["a", "b", "c"])
PERSON = spec_of(kind="oneshot", dim=2)

# Three rows right of four with a label; the missing one is right or wrong, whatever it holds.
# F1 by label: a 2/3 (one too many), b 2/3 (one missed), c 1: the mean is 7/9.
LOGITS = [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0], [5.0, 0.0, 0.0], [0.0, 0.0, 9.0]]
# a: 2 right, 1 too many.  b: 1 right, 1 missed.  Together: F1 = 6/8.  Of the three whole rows two are right.
SIGNS = [[1.0, -1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
HELD = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [NAN, 0.0]]


def chosen(*labels, of):
    """Logits that choose these labels: `[…, of]`."""
    return torch.nn.functional.one_hot(torch.tensor(labels), of).float().tolist()


# Words: O B-room I-room | B-time O.  Found: the room, and two more where the time stands and after it: F1 = 2/(2 + 3).
SPOKEN = [chosen(0, 0, 1, 2, 3, of=4), chosen(1, 0, 1, 0, 0, of=4)]
TAGGED = [[-1, 0, 1, 2, -1], [3, -1, 0, -1, -1]]
# Pixels known: a a b c; chosen: a b b a: a 1/3, b 1/2, c 0/1.
SHADES = [[[[9.0, 0, 0], [9, 0, 9]], [[0, 9, 9], [0, 0, 0]], [[0, 0, 0], [0, 9, 0]]]]
SHOWN = [[[0, 0, 1], [2, -1, -1]]]


@pytest.mark.parametrize(
    ("spec", "output", "target", "expected"),
    [
        pytest.param(CLASSES, LOGITS, [0, 1, 2, 1, -1], {"accuracy": 0.75, "f1": 7 / 9}, id="classification"),
        pytest.param(LABELS, SIGNS, HELD, {"f1": 0.75, "exact_match": 2 / 3}, id="multilabel"),
        # errors 1, 0, 2 around a mean of 3 with squares 4, 0, 4: r2 = 1 - 5/8
        pytest.param(
            NUMBER, [[2.0], [3.0], [3.0], [9.0]], [[1.0], [3.0], [5.0], [NAN]], {"mae": 1.0, "r2": 0.375}, id="number"
        ),
        # columns: r2 = 1, and errors 0, 1 around a mean of 2 with squares 1, 1: r2 = 1/2
        pytest.param(
            PAIR,
            [[0.0, 1.0], [2.0, 2.0], [1.0, 7.0]],
            [[0.0, 1.0], [2.0, 3.0], [1.0, NAN]],
            {"mae": 0.2, "r2": 0.75},
            id="numbers",
        ),
        pytest.param(
            VECTOR,
            [[1.0, 0.0], [9.0, 1.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.05]],
            [0, 0, 1, 0, -1],
            {"nearest_neighbour_accuracy": 0.5},
            id="embedding",
        ),
        pytest.param(WORDS, SPOKEN, TAGGED, {"span_f1": 0.4, "token_accuracy": 3 / 5}, id="tokens"),
        pytest.param(REGION, SHADES, SHOWN, {"iou": 5 / 18, "pixel_accuracy": 0.5}, id="segmentation"),
        # On a line: 0 and 1 of one class, 3, 6 and 7 of another. Left out in turn, 3 lies nearer to 0.5 than to 6.5,
        # all others where they belong; the row of a third class is not counted.
        pytest.param(
            PERSON,
            [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [6.0, 0.0], [7.0, 0.0], [50.0, 0.0], [3.0, 0.0]],
            [4, 4, 7, 7, 7, 9, -1],
            {"nearest_prototype_accuracy": 0.8},
            id="oneshot",
        ),
    ],
)
def test_values_by_hand_with_missing_targets_left_out(spec, output, target, expected):
    assert measured(spec, (output, target)) == expected
    halves = [(output[:2], target[:2]), (output[2:], target[2:])]
    assert measured(spec, *(half for half in halves if half[0])) == expected  # batches do not matter


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
        (WORDS, SPOKEN, TAGGED, [[-1] * 5] * 2),
        (REGION, SHADES, SHOWN, [[[-1] * 3] * 2]),
        (PERSON, [[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [0, 0, 1], [-1, -1, -1]),
    ],
    ids=["classification", "multilabel", "regression", "embedding", "tokens", "segmentation", "oneshot"],
)
def test_a_batch_of_missing_targets_changes_nothing(spec, output, target, missing):
    assert measured(spec, (output, missing), (output, target)) == measured(spec, (output, target))


# Against other implementations


def test_classification_agrees_with_scikit_learn():
    logits, target = noise(50, 5), drawn(4, 50)  # label 4 is in no target
    spec, guess = spec_of(kind="classification", labels=list("abcde")), logits.argmax(dim=1)
    assert computed_of(spec, logits, target) == pytest.approx(
        {"accuracy": accuracy_score(target, guess), "f1": f1_score(target, guess, average="macro")}
    )


def test_multilabel_agrees_with_scikit_learn():
    logits, target = noise(50, 3), drawn(2, 50, 3)
    spec, guess = spec_of(kind="multilabel", labels=list("abc")), logits > 0
    assert computed_of(spec, logits, target.float()) == pytest.approx(
        {"f1": f1_score(target, guess, average="micro"), "exact_match": accuracy_score(target, guess)}
    )


def test_regression_agrees_with_scikit_learn_far_from_zero():
    target = 300 + noise(50, 2) * 0.01
    values = target + 0.004 * noise(50, 2, seed=1)
    got = computed_of(PAIR, values, target)
    assert got["r2"] == pytest.approx(r2_score(target, values), abs=1e-3)
    assert got["mae"] == pytest.approx((values - target).abs().mean().item(), rel=1e-5)


def test_segmentation_agrees_with_scikit_learn():
    logits, target = noise(4, 3, 6, 5), drawn(3, 4, 6, 5)
    guess, truth = logits.argmax(dim=1).flatten(), target.flatten()
    assert computed_of(REGION, logits, target) == pytest.approx(
        {"iou": jaccard_score(truth, guess, average="macro"), "pixel_accuracy": accuracy_score(truth, guess)}
    )


def test_a_label_that_is_nowhere_does_not_lower_the_iou():
    logits = torch.tensor(chosen(0, 1, of=3)).T.reshape(1, 3, 1, 2)
    assert computed_of(REGION, logits, torch.tensor([[[0, 1]]])) == {"iou": 1.0, "pixel_accuracy": 1.0}


def computed_of(spec, output, target):
    metrics = head_metrics(spec)
    update(spec, metrics, output, target)
    return computed(metrics)


# Spans


@pytest.mark.parametrize(
    ("found", "true", "f1"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 1, 0], [0, 1, 2], 0.0),  # the type is right, the end is not
        ([1, 2, 0], [1, 2, 3], 2 / 3),
        ([3, 0, 1], [1, 0, 3], 0.0),  # places right, types not
        ([2, 2, 0], [1, 2, 0], 1.0),  # an I- that starts a span is read as one
        ([1, 1, 0], [1, 2, 0], 0.0),
        ([0, 0, 0], [1, 0, 0], 0.0),
    ],
)
def test_span_f1_by_hand(found, true, f1):
    metric = SpanF1(WORDS.labels)
    metric.update(torch.tensor([found]), torch.tensor([true]))
    assert metric.compute().item() == pytest.approx(f1)


def test_span_f1_counts_spans_and_not_rows():
    metric = SpanF1(WORDS.labels)
    metric.update(torch.tensor([[1, 3, 1]]), torch.tensor([[1, 3, 0]]))  # 2 of 3 found, 2 true
    metric.update(torch.tensor([[0, 0]]), torch.tensor([[3, -1]]))  # 1 missed
    assert metric.compute().item() == pytest.approx(2 * 2 / (3 + 3))


def test_what_stands_at_padding_and_inside_words_is_not_read():
    logits = torch.tensor([chosen(0, 1, 2, 2, of=4)])
    target = torch.tensor([[-1, 1, -1, 2]])
    expected = {"span_f1": 1.0, "token_accuracy": 1.0}
    assert computed_of(WORDS, logits, target) == expected
    longer = torch.cat([logits, torch.tensor([chosen(3, 3, of=4)])], dim=1)
    padded = torch.cat([target, torch.full((1, 2), -1)], dim=1)
    assert computed_of(WORDS, longer, padded) == expected


def test_batches_of_different_lengths_add_up():
    metrics = head_metrics(WORDS)
    update(WORDS, metrics, torch.tensor([chosen(1, 0, of=4)]), torch.tensor([[1, 0]]))
    update(WORDS, metrics, torch.tensor([chosen(1, 0, 3, 0, 0, of=4)]), torch.tensor([[1, 0, 0, 0, -1]]))
    assert computed(metrics) == pytest.approx({"span_f1": 4 / 5, "token_accuracy": 5 / 6})


def test_tokens_without_a_span_have_an_accuracy_alone():
    assert computed_of(WORDS, torch.tensor([chosen(0, 0, of=4)]), torch.tensor([[0, 0]])) == {"token_accuracy": 1.0}


# Too few targets


@pytest.mark.parametrize(
    ("spec", "output", "target", "expected"),
    [
        pytest.param(NUMBER, [[1.0], [2.0], [3.0]], [[NAN]] * 3, {}, id="number, none"),
        pytest.param(NUMBER, [[1.0], [2.0], [3.0]], [[NAN], [2.5], [NAN]], {"mae": 0.5}, id="number, one"),
        pytest.param(NUMBER, [[1.0], [2.0], [3.0]], [[1.0], [3.0], [NAN]], {"mae": 0.5, "r2": 0.5}, id="number, two"),
        pytest.param(PAIR, [[1.0, 2.0], [3.0, 4.0]], [[NAN, 2.0], [3.0, NAN]], {"mae": 0.0}, id="numbers, one of each"),
        pytest.param(
            PAIR, [[1.0, 2.0], [3.0, 4.0]], [[1.0, 3.5], [3.0, NAN]], {"mae": 0.5, "r2": 1.0}, id="numbers, two of one"
        ),
        pytest.param(CLASSES, [[1.0, 0.0, 0.0]] * 2, [-1, -1], {}, id="classification, none"),
        pytest.param(CLASSES, [[1.0, 0.0, 0.0]] * 2, [-1, 0], {"accuracy": 1.0, "f1": 1.0}, id="classification, one"),
        pytest.param(LABELS, [[1.0, -1.0]] * 2, [[NAN, 0.0], [1.0, NAN]], {"f1": 1.0}, id="multilabel, none whole"),
        pytest.param(PERSON, [[1.0, 0.0]] * 3, [2, 4, -1], {}, id="oneshot, one of each"),
        pytest.param(WORDS, SPOKEN, [[-1] * 5] * 2, {}, id="tokens, none"),
        pytest.param(REGION, SHADES, [[[-1] * 3] * 2], {}, id="segmentation, none"),
        pytest.param(VECTOR, [[1.0, 0.0]] * 2, [-1, -1], {}, id="embedding, none"),
        pytest.param(VECTOR, [[1.0, 0.0]] * 2, [-1, 0], {"nearest_neighbour_accuracy": 0.0}, id="embedding, one"),
    ],
)
def test_metrics_with_too_few_targets_are_left_out(spec, output, target, expected):
    metrics = head_metrics(spec)
    update(spec, metrics, torch.tensor(output), torch.tensor(target))
    assert computed(metrics) == pytest.approx(expected)
    assert all(type(value) is float for value in computed(metrics).values())


@pytest.mark.parametrize("spec", [CLASSES, LABELS, NUMBER, PAIR, VECTOR, WORDS, REGION, PERSON])
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
    ("threshold", "f1", "exact"),
    [
        (0.5, 6 / 8, 2 / 4),  # a: 2 right, 1 missed.  b: 1 right, 1 too many.
        (0.25, 8 / 10, 2 / 4),  # a: 3 right.  b: 1 right, 2 too many.
        (0.8, 4 / 6, 2 / 4),  # a: 1 right, 2 missed.  b: 1 right.
        ([0.25, 0.8], 1.0, 1.0),
        ([0.8, 0.25], 4 / 8, 2 / 4),
        ([0, 1], 6 / 8, 2 / 4),  # a: 3 right, 1 too many.  b: 1 missed.
    ],
)
def test_predictions_are_cut_at_the_heads_thresholds(threshold, f1, exact):
    spec = spec_of(kind="multilabel", labels=["a", "b"], threshold=threshold)
    logits = torch.tensor(CHANCES).logit().tolist()
    assert measured(spec, (logits, HOLDING)) == {"f1": f1, "exact_match": exact}


def test_a_chance_on_the_threshold_holds():
    assert measured(LABELS, ([[0.0, 0.0]], [[1.0, 1.0]])) == {"f1": 1.0, "exact_match": 1.0}


def test_a_multilabel_head_may_have_one_label():
    spec = spec_of(kind="multilabel", labels=["a"])
    expected = {"f1": 2 / 3, "exact_match": 0.5}
    assert measured(spec, ([[1.0], [-1.0], [1.0]], [[1.0], [1.0], [NAN]])) == expected


# Regression


def test_a_head_of_one_value_may_leave_out_its_dimension():
    assert measured(NUMBER, ([2.0, 3.0, 3.0], [[1.0], [3.0], [5.0]])) == {"mae": 1.0, "r2": 0.375}


@pytest.mark.parametrize(("values", "r2"), [([[4.0], [4.0]], 1.0), ([[4.0], [5.0]], 0.0)])
def test_r2_of_a_target_that_never_varies(values, r2):
    assert measured(NUMBER, (values, [[4.0], [4.0]]))["r2"] == pytest.approx(r2)


def test_an_output_that_is_not_a_number_shows():
    assert math.isnan(computed_of(NUMBER, torch.tensor([[NAN], [1.0]]), torch.tensor([[1.0], [2.0]]))["mae"])


# Nearest prototype


def test_a_row_takes_no_part_in_its_own_prototype():
    metric = NearestPrototypeAccuracy()
    # The first row alone drags its class's mean to itself: with it 2.5 away, without it 5; the other class is 4 away.
    metric.update(torch.tensor([[0.0], [5.0], [4.0], [4.0]]), torch.tensor([0, 0, 1, 1]))
    assert metric.compute().item() == pytest.approx(0.5)  # rows 0 and 1 lie nearer to the other class


def test_nearest_prototype_is_by_distance_and_not_by_angle():
    metric = NearestPrototypeAccuracy()
    metric.update(torch.tensor([[1.0, 0.0], [1.2, 0.0], [9.0, 0.0], [9.2, 0.1]]), torch.tensor([0, 0, 1, 1]))
    assert metric.compute().item() == 1.0


def test_nearest_prototype_agrees_with_loops():
    vectors, classes = noise(40, 3).double(), drawn(5, 40)
    right = []
    for row, own in enumerate(classes.tolist()):
        others = torch.arange(40) != row
        prototypes = {c: vectors[others & (classes == c)].mean(dim=0) for c in set(classes.tolist())}
        nearest = min(prototypes, key=lambda c: (vectors[row] - prototypes[c]).norm())
        right.append(nearest == own)
    metric = NearestPrototypeAccuracy()
    metric.update(vectors, classes)
    assert metric.compute().item() == pytest.approx(sum(right) / 40)


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
