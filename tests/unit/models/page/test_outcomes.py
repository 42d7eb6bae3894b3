import numpy as np
import pytest
import torch

from polyhead.models.metrics import computed, head_metrics, update
from polyhead.models.page.outcomes import (
    confusion,
    intersection_over_union,
    multilabel_scores,
    principal,
    span_scores,
)
from tests.unit.models.page.runs import outcome, spec_of

NAN = float("nan")


def one_hot(indices, labels):
    return np.eye(labels, dtype=np.float32)[np.array(indices)]


def logits(holds):
    return np.where(np.array(holds, dtype=bool), 5.0, -5.0).astype(np.float32)


def test_confusion_counts_true_by_predicted_and_leaves_missing_targets_out():
    outputs = one_hot([0, 1, 1, 2, 0, 2], 3)
    targets = np.array([0, 1, 0, 2, -1, 0])
    assert confusion(outputs, targets, 3).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 1]]


def test_confusion_of_no_known_row_is_all_zero():
    assert confusion(one_hot([0, 1], 2), np.array([-1, -1]), 2).tolist() == [[0, 0], [0, 0]]


def test_multilabel_scores_are_those_of_each_label_by_itself():
    outputs = logits([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1], [1, NAN, NAN]], dtype=np.float32)
    found = multilabel_scores(outputs, targets, ("a", "b", "c"))
    assert found.labels == ("a", "b", "c")
    assert found.support.tolist() == [3, 2, 1]
    np.testing.assert_allclose(found.precision, [2 / 3, 1, NAN])
    np.testing.assert_allclose(found.recall, [2 / 3, 1, 0])
    np.testing.assert_allclose(found.f1, [2 / 3, 1, 0])


def test_a_label_neither_true_nor_predicted_has_no_score():
    found = multilabel_scores(logits([[0], [0]]), np.zeros((2, 1), dtype=np.float32), ("a",))
    assert np.isnan([found.precision, found.recall, found.f1]).all()


def test_thresholds_are_reached_inclusively_and_one_may_stand_for_each_label():
    outputs = np.array([[0.0, 0.0], [1000.0, -1000.0]], dtype=np.float32)
    targets = np.ones((2, 2), dtype=np.float32)
    assert multilabel_scores(outputs, targets, ("a", "b"), (0.5, 0.6)).recall.tolist() == [1.0, 0.0]


def test_spans_are_right_only_as_a_whole_and_only_words_with_a_label_count():
    labels = ("O", "B-room", "I-room", "B-time", "I-time")
    targets = np.array([[-1, 1, 2, 0, 3, -1], [-1, 3, 4, 0, 0, -1], [-1, 1, 0, -1, -1, -1]])
    predicted = np.array([[1, 1, 2, 0, 3, 1], [0, 3, 0, 0, 1, 0], [3, 0, 0, 3, 3, 3]])
    found = span_scores(one_hot(predicted, 5), targets, labels)
    assert found.labels == ("room", "time")
    assert found.support.tolist() == [2, 2]
    np.testing.assert_allclose(found.precision, [1 / 2, 1 / 2])
    np.testing.assert_allclose(found.recall, [1 / 2, 1 / 2])
    np.testing.assert_allclose(found.f1, [1 / 2, 1 / 2])


def test_plain_token_labels_are_types_of_single_words():
    labels = ("O", "NOUN", "VERB")
    found = span_scores(one_hot([[1, 1, 2]], 3), np.array([[1, 2, 2]]), labels)
    assert found.labels == ("NOUN", "VERB")
    np.testing.assert_allclose(found.precision, [1 / 2, 1])
    np.testing.assert_allclose(found.recall, [1, 1 / 2])


def test_intersection_over_union_is_by_label_and_over_known_pixels():
    targets = np.array([[[0, 0, 1], [1, -1, -1]]])
    predicted = np.array([[[0, 1, 1], [1, 2, 0]]])
    outputs = np.moveaxis(one_hot(predicted, 4), 3, 1)
    np.testing.assert_allclose(intersection_over_union(outputs, targets, 4), [1 / 2, 2 / 3, NAN, NAN])


def test_principal_directions_are_those_of_the_largest_variance():
    random = np.random.default_rng(0)
    t = random.normal(size=(200, 2)) * (3, 1)
    directions = np.array([[0.6, 0.8, 0, 0], [0, 0, 0.8, 0.6]])
    points, shares = principal(t @ directions + 7)
    np.testing.assert_allclose(np.abs(np.corrcoef(points.T, t.T)[:2, 2:]), np.eye(2), atol=0.2)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(points.var(axis=0) / points.var(axis=0).sum(), shares)
    assert shares[0] > shares[1]
    assert shares.sum() == pytest.approx(1)


def test_principal_is_the_same_whatever_sign_the_decomposition_picks():
    vectors = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    once, _ = principal(vectors)
    again, _ = principal(vectors.copy(order="F"))
    np.testing.assert_allclose(once, again, atol=1e-6)


@pytest.mark.parametrize("vectors", [np.ones((4, 3)), np.ones((4, 1)), np.ones((1, 5))])
def test_vectors_that_do_not_vary_lie_on_one_point(vectors):
    points, shares = principal(vectors)
    np.testing.assert_allclose(points, np.zeros((len(vectors), 2)), atol=1e-12)
    assert shares.tolist() == [0, 0]


def test_numbers_with_one_dimension_have_a_first_direction_alone():
    points, shares = principal(np.array([[1.0], [3.0]]))
    assert points.tolist() == [[-1, 0], [1, 0]]
    assert shares.tolist() == [1, 0]


def test_the_page_agrees_with_the_metrics_of_the_run():
    spec, random = spec_of(), np.random.default_rng(3)

    def metric(head, name, outputs, targets):
        metrics = head_metrics(spec.heads[head])
        update(spec.heads[head], metrics, torch.from_numpy(outputs.astype(np.float32)), torch.from_numpy(targets))
        return pytest.approx(computed(metrics)[name], abs=1e-6)

    outputs, targets = outcome(spec.heads["intent"], random)
    counts = confusion(outputs, targets, 4)
    assert counts.trace() / counts.sum() == metric("intent", "accuracy", outputs, targets)

    outputs, targets = outcome(spec.heads["region"], random)
    found = intersection_over_union(outputs.astype(np.float32), targets, 2)
    assert found.mean() == metric("region", "iou", outputs, targets)

    single = spec_of({"slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]}})
    outputs, targets = outcome(single.heads["slots"], random)
    metrics = head_metrics(single.heads["slots"])
    update(single.heads["slots"], metrics, torch.from_numpy(outputs), torch.from_numpy(targets))
    assert span_scores(outputs, targets, ("O", "B-x", "I-x")).f1[0] == pytest.approx(computed(metrics)["span_f1"])
