from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import orjson
import pytest
from scipy.special import expit, softmax

from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
)
from polyhead.serving.answers import SERVED_KINDS, HeadAnswers
from polyhead.serving.protocol.json import encode
from polyhead.serving.request import Options

ANIMALS = ClassificationHead(kind="classification", labels=("cat", "dog", "cow", "hen"))
ALARMS = MultilabelHead(kind="multilabel", labels=("smoke", "water", "theft"))
LOGITS = np.array([[0.5, -1.0, 2.0, 0.0], [3.0, 1.0, -2.0, 2.5], [-1.0, -1.5, -3.0, -0.5]], np.float32)
ALARM_LOGITS = np.array([[2.0, -2.0, 0.0], [-0.5, 0.4, 3.0]], np.float32)


def _answers(spec: HeadSpec, output: Any, part: slice = slice(None), **options: Any) -> list[dict[str, Any]]:
    """As a client reads them: through JSON."""
    rows = HeadAnswers(spec, np.asarray(output, np.float32)).rows(part, Options(**options))
    decoded = orjson.loads(encode([{"head": row} for row in rows], single=False))["predictions"]
    return [row["head"] for row in decoded]


# --- classification -------------------------------------------------------------------------------------------------


def test_classification_is_the_largest_softmax():
    expected = softmax(LOGITS.astype(np.float64), axis=1)
    answers = _answers(ANIMALS, LOGITS)
    assert [(answer["label"], answer["index"]) for answer in answers] == [("cow", 2), ("cat", 0), ("hen", 3)]
    np.testing.assert_allclose([a["score"] for a in answers], expected.max(axis=1), rtol=1e-6)
    assert all(set(answer) == {"label", "score", "index"} for answer in answers)


def test_scores_are_every_label_in_the_order_of_the_spec():
    expected = softmax(LOGITS.astype(np.float64), axis=1)
    for answer, row in zip(_answers(ANIMALS, LOGITS, scores=True), expected, strict=True):
        assert list(answer["scores"]) == ["cat", "dog", "cow", "hen"]
        np.testing.assert_allclose(list(answer["scores"].values()), row, rtol=1e-6)
        assert answer["scores"][answer["label"]] == answer["score"]


def test_top_k_is_best_first():
    (answer, *_) = _answers(ANIMALS, LOGITS, top_k=3)
    assert [(top["label"], top["index"]) for top in answer["top"]] == [("cow", 2), ("cat", 0), ("hen", 3)]
    expected = softmax(LOGITS[0].astype(np.float64))[[2, 0, 3]]
    np.testing.assert_allclose([top["score"] for top in answer["top"]], expected, rtol=1e-6)
    assert answer["top"][0] == {key: answer[key] for key in ("label", "score", "index")}


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (4, 4), (5, 4), (10**6, 4), (2**63, 4), (2**64 - 1, 4)])
def test_top_k_is_at_most_all_labels(top_k: int, count: int):
    for answer, row in zip(_answers(ANIMALS, LOGITS, top_k=top_k), LOGITS, strict=True):
        assert [top["index"] for top in answer["top"]] == np.argsort(-row)[:count].tolist()


def test_ties_keep_the_order_of_the_labels():
    (answer,) = _answers(ANIMALS, [[1.0, 2.0, 1.0, 2.0]], top_k=4)
    assert answer["label"] == "dog"
    assert [top["label"] for top in answer["top"]] == ["dog", "hen", "cat", "cow"]


def test_ties_among_many_labels_keep_their_order_too():
    spec = ClassificationHead(kind="classification", labels=tuple(f"label {i}" for i in range(100)))
    (answer,) = _answers(spec, [[float(i % 2) for i in range(100)]], top_k=100)
    assert [top["index"] for top in answer["top"]] == [*range(1, 100, 2), *range(0, 100, 2)]


def test_no_top_and_no_scores_unless_asked():
    assert all({"top", "scores", "raw"}.isdisjoint(answer) for answer in _answers(ANIMALS, LOGITS))


# --- multilabel -----------------------------------------------------------------------------------------------------


def test_multilabel_holds_what_reaches_the_threshold():
    answers = _answers(ALARMS, ALARM_LOGITS)
    assert [answer["labels"] for answer in answers] == [["smoke", "theft"], ["water", "theft"]]
    np.testing.assert_allclose(answers[0]["scores"], expit([2.0, 0.0]), rtol=1e-6)
    np.testing.assert_allclose(answers[1]["scores"], expit([0.4, 3.0]), rtol=1e-6)
    assert all(set(answer) == {"labels", "scores"} for answer in answers)


@pytest.mark.parametrize(
    ("threshold", "labels"),
    [
        (0.9, [[], ["theft"]]),
        (0.0, [["smoke", "water", "theft"]] * 2),
        ((0.3, 0.9, 0.96), [["smoke"], ["smoke"]]),
        ((0.9, 0.1, 0.5), [["water", "theft"], ["water", "theft"]]),
    ],
)
def test_a_threshold_holds_for_all_labels_or_for_each(threshold: Any, labels: list[list[str]]):
    spec = ALARMS.model_copy(update={"threshold": threshold})
    assert [answer["labels"] for answer in _answers(spec, ALARM_LOGITS)] == labels


def test_a_score_at_the_threshold_holds():
    (answer,) = _answers(ALARMS, [[0.0, -1e-3, 1e-3]])
    assert answer["labels"] == ["smoke", "theft"]
    assert answer["scores"][0] == 0.5


def test_no_label_is_an_empty_list():
    assert _answers(ALARMS, [[-5.0, -6.0, -7.0]]) == [{"labels": [], "scores": []}]


def test_all_scores_of_a_multilabel_are_shown_when_asked():
    for answer, row in zip(_answers(ALARMS, ALARM_LOGITS, scores=True), ALARM_LOGITS, strict=True):
        assert list(answer["all_scores"]) == ["smoke", "water", "theft"]
        np.testing.assert_allclose(list(answer["all_scores"].values()), expit(row.astype(np.float64)), rtol=1e-6)


# --- regression and embedding ---------------------------------------------------------------------------------------


def test_a_single_value_is_a_number_with_its_unit():
    spec = RegressionHead(kind="regression", unit="°C")
    assert _answers(spec, [[1.5], [-0.25]]) == [{"value": 1.5, "unit": "°C"}, {"value": -0.25, "unit": "°C"}]


def test_several_values_are_a_list():
    spec = RegressionHead(kind="regression", unit="m", dim=3)
    assert _answers(spec, [[1.5, 2, 3], [4, 5, -0.5]]) == [
        {"value": [1.5, 2.0, 3.0], "unit": "m"},
        {"value": [4.0, 5.0, -0.5], "unit": "m"},
    ]


def test_an_embedding_is_a_vector_as_it_is():
    spec = EmbeddingHead(kind="embedding", dim=2, normalize=True)  # the graph has normalised it
    assert _answers(spec, [[3.0, 4.0]]) == [{"vector": [3.0, 4.0]}]


# --- every kind -----------------------------------------------------------------------------------------------------

EVERY = [
    (ANIMALS, LOGITS),
    (ALARMS, np.concatenate([ALARM_LOGITS, ALARM_LOGITS[:1] * 3])),
    (RegressionHead(kind="regression"), np.array([[1.0], [2.0], [3.0]], np.float32)),
    (RegressionHead(kind="regression", dim=2), np.arange(6, dtype=np.float32).reshape(3, 2)),
    (EmbeddingHead(kind="embedding", dim=2), np.arange(6, dtype=np.float32).reshape(3, 2)),
]
KINDS = ["classification", "multilabel", "regression", "regression of two", "embedding"]


def test_every_served_kind_is_tried_here():
    assert {spec.kind for spec, _ in EVERY} == set(SERVED_KINDS)


@pytest.mark.parametrize(("spec", "output"), EVERY, ids=KINDS)
def test_raw_is_the_row_of_the_output(spec: HeadSpec, output: np.ndarray):
    for answer, row in zip(_answers(spec, output, raw=True), output, strict=True):
        assert np.asarray(answer["raw"], np.float32).tolist() == row.tolist()
    assert all("raw" not in answer for answer in _answers(spec, output))


@pytest.mark.parametrize(("spec", "output"), EVERY, ids=KINDS)
@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 3), slice(2, 3), slice(0, 3)], ids=str)
def test_a_part_is_its_own_rows(spec: HeadSpec, output: np.ndarray, part: slice):
    options = {"top_k": 2, "scores": True, "raw": True}
    assert _answers(spec, output, part, **options) == _answers(spec, output, **options)[part]


@pytest.mark.parametrize(("spec", "output"), EVERY, ids=KINDS)
def test_columns_of_a_packed_output_are_answered_alike(spec: HeadSpec, output: np.ndarray):
    packed = np.full((len(output), output.shape[1] + 4), 77, np.float32)
    packed[:, 2:-2] = output
    options = Options(top_k=2, scores=True, raw=True)
    views, alone = (HeadAnswers(spec, part).rows(slice(1, 3), options) for part in (packed[:, 2:-2], output))
    assert encode([{"h": a} for a in views], single=False) == encode([{"h": a} for a in alone], single=False)


def test_logits_of_any_size_neither_overflow_nor_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extreme = [[1000.0, -1000.0, 0.0, 999.0], [-1000.0] * 4, [1e38, -1e38, 0, 0]]
        answers = _answers(ANIMALS, extreme, scores=True)
        alarms = _answers(ALARMS, [[1000.0, -1000.0, 1e38]], scores=True)
    np.testing.assert_allclose(
        [list(answer["scores"].values()) for answer in answers],
        [softmax([1000.0, -1000.0, 0.0, 999.0]), [0.25] * 4, [1, 0, 0, 0]],
        rtol=1e-6,
    )
    assert list(alarms[0]["all_scores"].values()) == [1.0, 0.0, 1.0]
    assert alarms[0]["labels"] == ["smoke", "theft"]


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_scores_agree_with_scipy(scale: float):
    logits = (np.random.default_rng(5).standard_normal((50, 4)) * scale).astype(np.float32)
    wide = logits.astype(np.float64)
    classes = [list(answer["scores"].values()) for answer in _answers(ANIMALS, logits, scores=True)]
    np.testing.assert_allclose(classes, softmax(wide, axis=1), rtol=1e-5, atol=1e-30)
    labels = [list(answer["all_scores"].values()) for answer in _answers(ALARMS, logits[:, :3], scores=True)]
    np.testing.assert_allclose(labels, expit(wide[:, :3]), atol=1e-7)
    np.testing.assert_allclose(np.sum(classes, axis=1), 1, rtol=1e-6)


def test_a_kind_that_is_not_served_is_an_error():
    with pytest.raises(NotImplementedError, match="heads of kind oneshot"):
        HeadAnswers(OneShotHead(kind="oneshot", dim=2), np.zeros((1, 2), np.float32))
