import numpy as np
import pytest

from polyhead.models import targets
from polyhead.models.spec import ModelSpec, SpecError

SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1",
        "inputs": {"text": {"kind": "text", "tokenizer": "tokenizer.json"}},
        "heads": {
            "classification": {"kind": "classification", "labels": ["a", "b"]},
            "multilabel": {"kind": "multilabel", "labels": ["x", "y"]},
            "regression": {"kind": "regression", "dim": 3},
            "segmentation": {"kind": "segmentation", "labels": ["no", "yes"]},
            "tokens": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
            "embedding": {"kind": "embedding", "dim": 2},
            "oneshot": {"kind": "oneshot", "dim": 2, "labels": ["p", "q"]},
            "free": {"kind": "oneshot", "dim": 2},
        },
    }
)
NAN = np.nan
# Four rows: known, known, known in part where the kind has parts, missing.
COLUMNS = {
    "classification": np.array([0, 1, 1, -1]),
    "multilabel": np.array([[0, 1], [1, 1], [NAN, 0], [NAN, NAN]], dtype=np.float32),
    "regression": np.array([[1, 2, 3], [0, 0, 0], [NAN, 1, NAN], [NAN] * 3], dtype=np.float32),
    "segmentation": np.array([[[0, 1]], [[1, 1]], [[-1, 0]], [[-1, -1]]]),
    "tokens": np.array([((0, 2, "x"),), (), ((1, 2, "x"),), None], dtype=object),
    "embedding": np.array([5, 900, 0, -1]),
    "oneshot": np.array([0, 1, 1, -1]),
    "free": np.array([0, 77, 1, -1]),
}


@pytest.mark.parametrize("head", COLUMNS)
def test_targets_of_the_right_form_pass_and_say_which_rows_have_one(head):
    targets.check(head, SPEC.heads[head], COLUMNS[head])
    assert targets.labelled(SPEC.heads[head], COLUMNS[head]).tolist() == [True, True, True, False]


@pytest.mark.parametrize("head", COLUMNS)
def test_missing_targets_are_of_the_same_form_and_known_to_be_missing(head):
    none = targets.missing(SPEC.heads[head], 3, COLUMNS[head])
    assert (none.dtype, none.shape) == (COLUMNS[head].dtype, (3, *COLUMNS[head].shape[1:]))
    targets.check(head, SPEC.heads[head], none)
    assert not targets.labelled(SPEC.heads[head], none).any()


def test_encoded_tokens_are_known_where_any_token_is():
    encoded = np.array([[-1, 0, -1], [-1, -1, -1]])
    assert targets.labelled(SPEC.heads["tokens"], encoded).tolist() == [True, False]


@pytest.mark.parametrize(
    ("head", "column", "says"),
    [
        ("classification", np.array([0.0, 1.0]), "targets of 'classification' are float64 [2]: give int64 [rows]"),
        ("classification", np.array([[0], [1]]), "are int64 [2, 1]: give int64 [rows]"),
        ("classification", np.array([0, 2]), "reach from 0 to 2: give 0 to 1, one for each of the 2 labels"),
        ("oneshot", np.array([-2, 0]), "reach from -2 to 0: give 0 to 1"),
        ("multilabel", np.array([[0, 1]]), "are int64 [1, 2]: give float32 [rows, 2]"),
        (
            "multilabel",
            np.array([[0, 2]], dtype=np.float32),
            "hold other numbers than 0 and 1: give 1 where a label holds",
        ),
        ("regression", np.zeros((2, 1), np.float32), "are float32 [2, 1]: give float32 [rows, 3]"),
        ("regression", np.zeros(2), "are float64 [2]: give float32 [rows, 3]"),
        ("regression", np.full((1, 3), np.inf, np.float32), "hold an infinite value: give NaN where one is missing"),
        ("segmentation", np.zeros((2, 4), np.int64), "are int64 [2, 4]: give int64 [rows, height, width]"),
        ("segmentation", np.full((1, 2, 2), 5), "reach from 5 to 5: give 0 to 1"),
        ("tokens", np.zeros((2, 4), np.int64), "give an object array [rows] of spans"),
    ],
)
def test_targets_of_another_form_are_refused_with_what_to_give(head, column, says):
    with pytest.raises(SpecError) as caught:
        targets.check(head, SPEC.heads[head], column)
    assert says in str(caught.value)
