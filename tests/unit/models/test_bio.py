import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.models.bio import spans

NAMES = ("O", "B-room", "I-room", "B-time", "I-time")


def named(*labels, names=NAMES):
    return spans([names.index(label) for label in labels], names)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param((), [], id="no word"),
        pytest.param(("O", "O"), [], id="nothing"),
        pytest.param(("B-room",), [(0, 1, "room")], id="one word"),
        pytest.param(("O", "B-room", "I-room", "O"), [(1, 3, "room")], id="continued"),
        pytest.param(("B-room", "B-room"), [(0, 1, "room"), (1, 2, "room")], id="B- starts anew"),
        pytest.param(("B-room", "I-room", "B-room", "I-room"), [(0, 2, "room"), (2, 4, "room")], id="two of a kind"),
        pytest.param(("I-room", "I-room"), [(0, 2, "room")], id="I- starts where nothing does"),
        pytest.param(("B-room", "I-time", "I-time"), [(0, 1, "room"), (1, 3, "time")], id="I- of another type starts"),
        pytest.param(("B-room", "O", "I-room"), [(0, 1, "room"), (2, 3, "room")], id="O ends"),
        pytest.param(("I-time", "I-room", "I-time"), [(0, 1, "time"), (1, 2, "room"), (2, 3, "time")], id="I- alone"),
        pytest.param(("O", "O", "B-time"), [(2, 3, "time")], id="at the end"),
    ],
)
def test_spans_by_hand(labels, expected):
    assert named(*labels) == expected


def test_other_labels_stand_for_one_word_each():
    names = ("O", "NOUN", "VERB", "B-NOUN", "I-NOUN")
    assert named("NOUN", "NOUN", "O", "VERB", names=names) == [(0, 1, "NOUN"), (1, 2, "NOUN"), (3, 4, "VERB")]
    assert named("NOUN", "I-NOUN", "NOUN", names=names) == [(0, 1, "NOUN"), (1, 2, "NOUN"), (2, 3, "NOUN")]


def test_a_bare_prefix_is_a_label_like_any_other():
    assert named("B-", "I-", "I-", "B", "I", names=("B-", "I-", "B", "I")) == [
        (0, 1, "B-"),
        (1, 2, "I-"),
        (2, 3, "I-"),
        (3, 4, "B"),
        (4, 5, "I"),
    ]


def test_a_type_may_hold_hyphens_and_any_letters():
    names = ("O", "B-räum-e", "I-räum-e", "b-x")
    assert named("B-räum-e", "I-räum-e", "b-x", names=names) == [(0, 2, "räum-e"), (2, 3, "b-x")]


def test_there_need_not_be_an_outside():
    assert named("a", "b", names=("a", "b")) == [(0, 1, "a"), (1, 2, "b")]


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_without_a_name_is_refused(label):
    with pytest.raises(ValueError, match="names") as caught:
        spans([0, label], NAMES)
    assert str(caught.value) == f"word 1 has label {label} of 5 names: leave out words without a label"


@given(st.lists(st.integers(0, len(NAMES) - 1), max_size=12))
def test_spans_are_in_order_apart_and_cover_what_is_labelled(labels):
    found = spans(labels, NAMES)
    covered = [place for start, end, _ in found for place in range(start, end)]
    assert covered == [place for place, label in enumerate(labels) if NAMES[label] != "O"]
    for start, end, kind in found:
        assert {NAMES[label][2:] for label in labels[start:end]} == {kind}
        assert all(NAMES[label][0] == "I" for label in labels[start + 1 : end])


@given(st.lists(st.tuples(st.sampled_from(["room", "time", None]), st.integers(1, 3)), max_size=8))
def test_what_is_written_as_bio_is_read_back(parts):
    labels, expected = [], []
    for kind, length in parts:
        if kind is None:
            labels += [0] * length
        else:
            expected.append((len(labels), len(labels) + length, kind))
            labels += [NAMES.index(f"B-{kind}")] + [NAMES.index(f"I-{kind}")] * (length - 1)
    assert spans(labels, NAMES) == expected


def test_it_needs_no_torch():
    code = "import sys, polyhead.models.bio; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
