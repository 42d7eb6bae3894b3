from __future__ import annotations

import base64
import io
import warnings
from typing import Any, get_args

import numpy as np
import orjson
import pytest
from PIL import Image
from scipy.special import expit, softmax

from polyhead.models.spec import (
    DENSE_HEADS,
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    TokensHead,
)
from polyhead.models.tokenizer import Encoding
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.golden import Array
from polyhead.serving.protocol.json import document
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import Options

ANIMALS = ClassificationHead(kind="classification", labels=("cat", "dog", "cow", "hen"))
ALARMS = MultilabelHead(kind="multilabel", labels=("smoke", "water", "theft"))
LOGITS = np.array([[0.5, -1.0, 2.0, 0.0], [3.0, 1.0, -2.0, 2.5], [-1.0, -1.5, -3.0, -0.5]], np.float32)
ALARM_LOGITS = np.array([[2.0, -2.0, 0.0], [-0.5, 0.4, 3.0]], np.float32)
SLOTS = TokensHead(kind="tokens", labels=("O", "B-room", "I-room"))
GROUND = SegmentationHead(kind="segmentation", labels=("grass", "road", "water"))
WHO = OneShotHead(kind="oneshot", dim=2, scale=0.5)
CORNERS = Prototypes(
    ("ana", "bob", "cy"), np.array([[0, 0], [3, 0], [0, 4]], np.float32), np.array([1, 1, 1], dtype=np.int64)
)


def _text(count: int, text: str = "a b c d e f g h") -> Encoding:
    """So many words of one letter, each its own token, between two special ones."""
    spans = np.array([[2 * i, 2 * i + 1] for i in range(count)], dtype=np.int64).reshape(-1, 2)
    return Encoding(text, np.arange(count + 2), np.arange(1, count + 1), spans)


def _answers(
    spec: HeadSpec,
    output: Any,
    part: slice = slice(None),
    texts: tuple[Encoding, ...] = (),
    prototypes: Prototypes | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """As a client reads them: through JSON."""
    rows = HeadAnswers(spec, np.asarray(output, np.float32), texts, prototypes).rows(part, Options(**options))
    decoded = orjson.loads(document([{"head": row} for row in rows], single=False))["predictions"]
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
    (WHO, np.array([[0, 1], [2, 0], [9, 9]], np.float32)),
    (SLOTS, np.random.default_rng(2).standard_normal((3, 5, 3)).astype(np.float32)),
    (GROUND, np.random.default_rng(3).standard_normal((3, 3, 2, 4)).astype(np.float32)),
]
KINDS = [f"{spec.kind}{list(output.shape[1:])}" for spec, output in EVERY]
MORE: dict[str, Any] = {"tokens": {"texts": (_text(3),) * 3}, "oneshot": {"prototypes": CORNERS}}


def test_every_kind_of_the_spec_is_tried_here():
    kinds = {kind.model_fields["kind"].annotation.__args__[0] for kind in get_args(get_args(HeadSpec)[0])}
    assert {spec.kind for spec, _ in EVERY} == kinds


@pytest.mark.parametrize(("spec", "output"), EVERY, ids=KINDS)
def test_raw_is_the_row_of_the_output(spec: HeadSpec, output: np.ndarray):
    more = MORE.get(spec.kind, {})
    for answer, row in zip(_answers(spec, output, **more, raw=True), output, strict=True):
        assert np.asarray(answer["raw"], np.float32).tolist() == row.tolist()
    assert all("raw" not in answer for answer in _answers(spec, output, **more))


@pytest.mark.parametrize(("spec", "output"), EVERY, ids=KINDS)
@pytest.mark.parametrize("part", [slice(0, 1), slice(1, 3), slice(2, 3), slice(0, 3)], ids=str)
def test_a_part_is_its_own_rows(spec: HeadSpec, output: np.ndarray, part: slice):
    options = {"top_k": 2, "scores": True, "raw": True, **MORE.get(spec.kind, {})}
    assert _answers(spec, output, part, **options) == _answers(spec, output, **options)[part]


PACKED = [case for case in EVERY if not isinstance(case[0], DENSE_HEADS)]


@pytest.mark.parametrize(("spec", "output"), PACKED, ids=[spec.kind for spec, _ in PACKED])
def test_columns_of_a_packed_output_are_answered_alike(spec: HeadSpec, output: np.ndarray):
    packed = np.full((len(output), output.shape[1] + 4), 77, np.float32)
    packed[:, 2:-2] = output
    options, more = Options(top_k=2, scores=True, raw=True), MORE.get(spec.kind, {})
    views, alone = (HeadAnswers(spec, part, **more).rows(slice(1, 3), options) for part in (packed[:, 2:-2], output))
    assert document([{"h": a} for a in views], single=False) == document([{"h": a} for a in alone], single=False)


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


# --- tokens ---------------------------------------------------------------------------------------------------------


def _tokens(*labels: int, sequence: int = 0, certain: float = 20.0) -> Array:
    """Logits of one row `[1, sequence, labels]` whose words have these labels; everything else says `B-room`."""
    logits = np.zeros((1, max(sequence, len(labels) + 2), 3), np.float32)
    logits[..., 1] = certain
    logits[0, 1 : len(labels) + 1] = np.eye(3)[list(labels)] * certain
    return logits


def test_entities_are_spans_of_words():
    (answer,) = _answers(SLOTS, _tokens(0, 1, 2, 0, 1, 1), texts=(_text(6),))
    assert answer == {
        "entities": [
            {"label": "room", "text": "b c", "start": 2, "end": 5, "score": 1.0},
            {"label": "room", "text": "e", "start": 8, "end": 9, "score": 1.0},
            {"label": "room", "text": "f", "start": 10, "end": 11, "score": 1.0},
        ]
    }


def test_special_tokens_and_padding_are_no_words():
    assert _answers(SLOTS, _tokens(0, 0, sequence=16), texts=(_text(2),)) == [{"entities": []}]
    assert _answers(SLOTS, _tokens(0, sequence=8)[:, 1:], texts=(_text(0, ""),)) == [{"entities": []}]


def test_the_score_of_an_entity_is_the_mean_of_its_words():
    logits = np.zeros((1, 4, 3), np.float32)
    logits[0, 1] = [0.5, 2.0, -1.0]
    logits[0, 2] = [0.0, 0.25, 1.0]
    (answer,) = _answers(SLOTS, logits, texts=(_text(2),), scores=True)
    expected = [softmax(logits[0, 1].astype(float))[1], softmax(logits[0, 2].astype(float))[2]]
    assert answer["entities"][0]["score"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert [word["score"] for word in answer["words"]] == pytest.approx(expected, rel=1e-6)


def test_words_are_shown_with_scores_each_with_its_own_label():
    (answer,) = _answers(SLOTS, _tokens(0, 1, 2), texts=(_text(3),), scores=True)
    assert answer["words"] == [
        {"text": "a", "start": 0, "end": 1, "label": "O", "score": 1.0},
        {"text": "b", "start": 2, "end": 3, "label": "B-room", "score": 1.0},
        {"text": "c", "start": 4, "end": 5, "label": "I-room", "score": 1.0},
    ]


def test_plain_labels_are_of_one_word_each():
    parts = TokensHead(kind="tokens", labels=("NOUN", "VERB", "OTHER"))
    (answer,) = _answers(parts, _tokens(1, 0, 0, 2), texts=(_text(4),))
    assert [(e["label"], e["text"]) for e in answer["entities"]] == [
        ("VERB", "a"),
        ("NOUN", "b"),
        ("NOUN", "c"),
        ("OTHER", "d"),
    ]


def test_raw_of_tokens_ends_where_the_text_does():
    logits = np.concatenate([_tokens(0, 1, sequence=8), _tokens(1, 2, 0, 0, sequence=8)])
    short, long = _answers(SLOTS, logits, texts=(_text(2), _text(4)), raw=True)
    assert np.asarray(short["raw"]).tolist() == logits[0, :4].tolist()
    assert np.asarray(long["raw"]).tolist() == logits[1, :6].tolist()


def test_scores_of_tokens_are_probabilities_for_logits_of_any_size():
    logits = np.random.default_rng(0).standard_normal((1, 8, 3)).astype(np.float32)
    for scale in (1e-3, 1, 1e3, 1e30):
        (answer,) = _answers(SLOTS, logits * np.float32(scale), texts=(_text(6),), scores=True)
        assert all(1 / 3 <= word["score"] <= 1 for word in answer["words"])


# --- segmentation ---------------------------------------------------------------------------------------------------

PIXELS = np.array([[0, 0, 2, 2], [2, 0, 0, 0]])


def _ground(pixels: Array) -> Array:
    """Logits `[1, labels, height, width]` with these labels."""
    return np.moveaxis(np.eye(3, dtype=np.float32)[pixels], -1, 0)[None]


def test_runs_go_on_from_line_to_line():
    (answer,) = _answers(GROUND, _ground(PIXELS))
    assert answer == {
        "labels": ["grass", "water"],
        "areas": [0.625, 0.375],
        "size": [2, 4],
        "runs": [[0, 2], [2, 3], [0, 3]],
    }


def test_a_mask_of_one_label_is_one_run():
    (answer,) = _answers(GROUND, _ground(np.ones((2, 4), dtype=int)))
    assert (answer["labels"], answer["areas"], answer["runs"]) == (["road"], [1.0], [[1, 8]])


def test_a_png_holds_the_same_labels():
    (answer,) = _answers(GROUND, _ground(PIXELS), mask="png")
    assert set(answer) == {"labels", "areas", "size", "png"}
    image = Image.open(io.BytesIO(base64.b64decode(answer["png"])))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (4, 2))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


# --- oneshot --------------------------------------------------------------------------------------------------------


def test_the_nearest_prototype_by_hand():
    """From (1, 0): 1 to ana, 2 to bob, the root of 17 to cy. Scores are softmax(-0.5 d^2) = exp(-[0.5, 2, 8.5])."""
    (answer,) = _answers(WHO, [[1, 0]], prototypes=CORNERS, scores=True)
    weights = np.exp([-0.5, -2, -8.5])
    assert (answer["label"], answer["distance"]) == ("ana", 1.0)
    assert list(answer["scores"]) == ["ana", "bob", "cy"]
    np.testing.assert_allclose(list(answer["scores"].values()), weights / weights.sum(), rtol=1e-5)
    assert answer["score"] == answer["scores"]["ana"]


@pytest.mark.parametrize(("limit", "label"), [(0.99, None), (1.0, "ana"), (5.0, "ana")])
def test_a_row_too_far_from_every_prototype_has_no_label(limit: float, label: str | None):
    spec = WHO.model_copy(update={"max_distance": limit})
    (answer,) = _answers(spec, [[1, 0]], prototypes=CORNERS)
    assert answer["label"] == label
    assert answer["distance"] == 1.0  # of the nearest, also where it is too far
    assert 0 < answer["score"] < 1


def test_nobody_enrolled_is_nobody_found():
    for prototypes in (None, Prototypes.empty(2)):
        (answer,) = _answers(WHO, [[1, 0]], prototypes=prototypes, scores=True, top_k=2)
        assert answer == {"label": None, "score": None, "distance": None, "scores": {}, "top": []}


def test_top_k_of_prototypes_is_nearest_first():
    (answer,) = _answers(WHO, [[2.5, 0]], prototypes=CORNERS, top_k=2)
    assert [(top["label"], top["distance"]) for top in answer["top"]] == [("bob", 0.5), ("ana", 2.5)]
    assert answer["top"][0] == {key: answer[key] for key in ("label", "score", "distance")}


def test_top_k_is_nearest_first_also_where_scores_are_too_small_to_tell():
    far = Prototypes(("z", "y", "x"), np.array([[90, 0], [60, 0], [1, 0]], np.float32), np.array([1, 1, 1]))
    (answer,) = _answers(WHO, [[0, 0]], prototypes=far, top_k=3)
    assert [(top["label"], top["score"]) for top in answer["top"]] == [("x", 1.0), ("y", 0.0), ("z", 0.0)]
