from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from pydantic import ValidationError

from polyhead.models.arrays import array_specs
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    ModelSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    SegmentationHead,
    TokensHead,
)
from polyhead.serving.golden import Array, Golden, Tolerance, decisions, difference, fault, one_by_one, trimmed

ANIMALS = ClassificationHead(kind="classification", labels=("cat", "dog", "cow"))
ALARMS = MultilabelHead(kind="multilabel", labels=("smoke", "water"), threshold=(0.5, 0.9))
LEVEL = RegressionHead(kind="regression", dim=2)
VECTOR = EmbeddingHead(kind="embedding", dim=2)
WHO = OneShotHead(kind="oneshot", dim=2)
SLOTS = TokensHead(kind="tokens", labels=("O", "B-room", "I-room"))
GROUND = SegmentationHead(kind="segmentation", labels=("grass", "road"))
TIGHT = Tolerance(atol=1e-3, rtol=0)
LOOSE = Tolerance(atol=1e-5, rtol=1e-2)


def _fault(head: HeadSpec, actual: Any, expected: Any, tolerance: Tolerance = TIGHT) -> str | None:
    return fault(head, np.asarray(actual, np.float32), np.asarray(expected, np.float32), tolerance)


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [ANIMALS, ALARMS, LEVEL, VECTOR], ids=lambda head: head.kind)
def test_the_same_numbers_have_no_fault(head: HeadSpec):
    width = 3 if head is ANIMALS else 2
    values = np.random.default_rng(0).standard_normal((5, width))
    assert _fault(head, values, values, Tolerance(atol=1e-12, rtol=0)) is None


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2,), (2, 2, 1)])
def test_another_shape_is_a_fault(shape: tuple[int, ...]):
    assert _fault(LEVEL, np.zeros(shape), np.zeros((2, 2))) == f"shape {list(shape)}, eager has [2, 2]"


@pytest.mark.parametrize(("bad", "count"), [([np.nan], 1), ([np.inf, -np.inf], 2), ([np.nan, np.inf, 1], 2)])
def test_numbers_that_are_not_finite_are_counted(bad: list[float], count: int):
    actual = np.zeros((3, 2), np.float32)
    actual.flat[: len(bad)] = bad
    assert (
        _fault(LEVEL, actual, np.zeros((3, 2)), Tolerance(atol=1e9, rtol=0)) == f"{count} of its values are not finite"
    )


@pytest.mark.parametrize(("error", "faulty"), [(0.0009, False), (0.0011, True), (-0.0009, False), (-0.0011, True)])
def test_the_absolute_tolerance_holds_on_both_sides(error: float, faulty: bool):
    assert (_fault(LEVEL, [[error, 0]], [[0, 0]]) is not None) is faulty


def test_the_scale_is_the_largest_number_of_the_row():
    assert _fault(LEVEL, [[0.9, 100]], [[0, 100]], LOOSE) is None  # 1 % of 100
    assert _fault(LEVEL, [[0.9, -100]], [[0, -100]], LOOSE) is None
    assert _fault(LEVEL, [[1.1, 100]], [[0, 100]], LOOSE) is not None


def test_a_large_row_excuses_no_other():
    expected = [[0, 100], [0, 1]]
    assert _fault(LEVEL, [[0.9, 100], [0, 1]], expected, LOOSE) is None
    assert _fault(LEVEL, [[0, 100], [0.9, 1]], expected, LOOSE) is not None


def test_the_message_tells_the_worst_row_and_how_many_values():
    expected = [[0, 1], [0, 100], [0, 2]]
    wrong = _fault(LEVEL, [[0, 1], [3, 100], [0, 2.5]], expected, LOOSE)
    # Row 2 is 25 times beyond what its scale allows, row 1 three times: the error is larger, the fault smaller.
    assert wrong == "error 0.5 in row 2, allowed 0.02 (2 of 6 values beyond it)"


def test_one_value_beyond_is_told_to_three_digits():
    assert _fault(LEVEL, [[0.0123456, 0]], [[0, 0]]) == "error 0.0123 in row 0, allowed 0.001 (1 of 2 values beyond it)"


def test_large_float32_numbers_are_compared_without_overflow():
    assert _fault(LEVEL, [[3e38, -3e38]], [[-3e38, 3e38]]) == (
        "error 6e+38 in row 0, allowed 0.001 (2 of 2 values beyond it)"
    )


# --- decisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "actual", "expected", "tolerance", "wrong"),
    [
        # The largest logit: eager was clear, the graph says another label.
        (ANIMALS, [[-500, 0, 0.1]], [[-500, 0.1, 0]], LOOSE, "1 of 1 clear decisions differ"),
        (ANIMALS, [[-500, 0.2, 0.1]], [[-500, 0.1, 0]], LOOSE, None),
        # Eager itself was torn: twice the absolute tolerance is as far as both may move.
        (ANIMALS, [[0, 0, 0.0005]], [[0, 0.0005, 0]], TIGHT, None),
        # The side of each label's own threshold: 0.5 is logit 0, 0.9 is logit 2.197.
        (ALARMS, [[-0.1, 100]], [[0.1, 100]], LOOSE, "1 of 2 clear decisions differ"),
        (ALARMS, [[100, 2.1]], [[100, 2.3]], LOOSE, "1 of 2 clear decisions differ"),
        (ALARMS, [[100, 0.1]], [[100, -0.1]], LOOSE, None),
        (ALARMS, [[-0.0004, 5]], [[0.0004, 5]], TIGHT, None),
        # The direction of a vector, where it is long enough to have one.
        (VECTOR, [[1, 0.09]], [[1, 0]], Tolerance(atol=0.1, rtol=0), "1 of 1 clear decisions differ"),
        (VECTOR, [[1, 0.01]], [[1, 0]], Tolerance(atol=0.1, rtol=0), None),
        (VECTOR, [[0.1, 0.09]], [[0.1, 0]], Tolerance(atol=0.1, rtol=0), None),
        (WHO, [[1, 0.09]], [[1, 0]], Tolerance(atol=0.1, rtol=0), "1 of 1 clear decisions differ"),
        (WHO, [[1, 0.01]], [[1, 0]], Tolerance(atol=0.1, rtol=0), None),
        # The label of each token; padding is zeros on both sides, and decides nothing.
        (SLOTS, [[[-500, 0, 0.1], [0, 0, 0]]], [[[-500, 0.1, 0], [0, 0, 0]]], LOOSE, "1 of 1 clear decisions differ"),
        (SLOTS, [[[-500, 0.2, 0.1], [0, 0, 0]]], [[[-500, 0.1, 0], [0, 0, 0]]], LOOSE, None),
        (SLOTS, [[[0, 0, 0.0005]]], [[[0, 0.0005, 0]]], TIGHT, None),
        # The label of each pixel.
        (
            GROUND,
            [[[[0.1, 500]], [[0, -500]]]],
            [[[[0, 500]], [[0.1, -500]]]],
            LOOSE,
            "1 of 2 clear decisions differ",
        ),
        (GROUND, [[[[0, 500]], [[0.2, -500]]]], [[[[0, 500]], [[0.1, -500]]]], LOOSE, None),
        # A number decides nothing.
        (LEVEL, [[-0.1, 100]], [[0.1, 100]], LOOSE, None),
    ],
)
def test_decisions_are_eagers(head: HeadSpec, actual: Any, expected: Any, tolerance: Tolerance, wrong: str | None):
    assert _fault(head, actual, expected, tolerance) == wrong


def test_decisions_are_counted_over_all_rows():
    expected = [[-500, 0.1, 0]] * 4
    actual = [[-500, 0.1, 0], [-500, 0, 0.1], [-500, 0, 0.1], [-500, 0.1, 0]]
    assert _fault(ANIMALS, actual, expected, LOOSE) == "2 of 4 clear decisions differ"


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_the_end_of_the_scale_is_no_trouble(threshold: float):
    head = MultilabelHead(kind="multilabel", labels=("a",), threshold=threshold)
    assert _fault(head, [[3.0], [-3.0]], [[3.0], [-3.0]]) is None


def test_a_zero_vector_has_no_direction_and_no_fault():
    assert _fault(VECTOR, [[0, 0]], [[0, 0]]) is None


def test_a_share_of_the_decisions_may_differ_where_it_is_agreed_on():
    expected = np.array([[-500, 0.1, 0]] * 50)
    actual = expected.copy()
    actual[7] = [-500, 0, 0.1]
    assert fault(ANIMALS, actual, expected, LOOSE, 0.98) is None
    assert fault(ANIMALS, actual, expected, LOOSE, 0.99) == "1 of 50 clear decisions differ, wanted 99.00% the same"
    assert fault(ANIMALS, actual, expected, LOOSE) == "1 of 50 clear decisions differ"
    assert decisions(ANIMALS, actual, expected, LOOSE) == (50, 49)


def test_values_that_are_not_close_are_a_fault_whatever_share_is_agreed_on():
    assert fault(ANIMALS, np.array([[9.0, 0, 0]]), np.array([[1.0, 0, 0]]), LOOSE, 0.0) is not None


@pytest.mark.parametrize(
    ("head", "expected", "clear"),
    [
        (ANIMALS, [[0, 1, 0], [0, 0.001, 0]], 1),
        (ALARMS, [[0.001, 9], [9, 2.198]], 2),
        (LEVEL, [[1, 2]], 0),
        (VECTOR, [[1, 0], [1e-3, 1e-3]], 1),
        (SLOTS, [[[1, 0, 0], [0, 0, 0]]], 1),
    ],
)
def test_only_clear_decisions_are_counted(head: HeadSpec, expected: Any, clear: int):
    values = np.asarray(expected, np.float64)
    assert decisions(head, values, values, TIGHT) == (clear, clear)


@pytest.mark.parametrize(("cosine", "faulty"), [(0.99, False), (0.999, True)])
def test_how_far_a_vector_may_turn_is_in_the_tolerance(cosine: float, faulty: bool):
    tolerance = Tolerance(atol=0.2, rtol=0, cosine=cosine)
    assert (fault(VECTOR, np.array([[1, 0.1]]), np.array([[1.0, 0]]), tolerance) is not None) is faulty


# --- difference, tolerance, file ------------------------------------------------------------------------------------


def test_difference_is_the_largest_over_everything():
    assert difference(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.5], [2.0, 4.0]])) == 1.0
    assert difference(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0


@pytest.mark.parametrize("actual", [np.zeros((2, 1)), np.array([np.nan, 0]), np.array([np.inf, 0])])
def test_what_cannot_be_compared_is_infinitely_far(actual: np.ndarray):
    assert difference(actual, np.zeros(2)) == float("inf")


def test_a_gpu_may_be_ten_times_as_far_off():
    tolerance = Tolerance(atol=1e-5, rtol=1e-4)
    assert tolerance.on("cpu") == tolerance
    assert tolerance.on("cuda:0").atol == pytest.approx(1e-4)
    assert tolerance.on("cuda:0").rtol == pytest.approx(1e-3)


@pytest.mark.parametrize("values", [{"atol": 0, "rtol": 0}, {"atol": 1, "rtol": -1}, {"atol": 1}, {"atol": 1, "r": 1}])
def test_an_impossible_tolerance_is_refused(values: dict[str, float]):
    with pytest.raises(ValidationError):
        Tolerance(**values)


def test_golden_samples_survive_their_file():
    inputs = {"x": np.arange(6, dtype=np.float32).reshape(3, 2), "image": np.arange(12, dtype=np.uint8).reshape(3, 4)}
    outputs = {"h": np.array([[1.5], [2.5], [-0.0]], np.float32)}
    found = Golden.load(Golden(inputs, outputs).dump())
    assert found.rows == 3
    for got, wanted in ((found.inputs, inputs), (found.outputs, outputs)):
        assert set(got) == set(wanted)
        for name, array in wanted.items():
            assert got[name].dtype == array.dtype
            assert got[name].tobytes() == array.tobytes()
            assert got[name].shape == array.shape


def test_golden_samples_that_are_not_contiguous_are_written_as_they_read():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    found = Golden.load(Golden({"x": array}, {"h": array[:, :1]}).dump())
    np.testing.assert_array_equal(found.inputs["x"], array)
    np.testing.assert_array_equal(found.outputs["h"], array[:, :1])


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64, b"{}", b"\x80\x04K\x01."])
def test_other_bytes_are_no_golden_samples(data: bytes):
    with pytest.raises((safetensors.SafetensorError, KeyError)):
        Golden.load(data)


@pytest.mark.parametrize("keys", [["x"], ["inputs/x", "weights/y"], ["outputs/h"]])
def test_other_keys_are_no_golden_samples(keys: list[str]):
    with pytest.raises(KeyError):
        Golden.load(safetensors.numpy.save({key: np.zeros(2, np.float32) for key in keys}))


# --- texts ----------------------------------------------------------------------------------------------------------

SPEC = ModelSpec.parse(
    {
        "name": "two",
        "version": "1",
        "inputs": {
            "a": {"kind": "text", "tokenizer": "t.json"},
            "b": {"kind": "text", "tokenizer": "t.json"},
            "x": {"kind": "tensor", "shape": [3]},
        },
        "heads": {"y": {"kind": "regression"}},
    }
)
ARRAYS = array_specs(SPEC)


def _padded(*lengths: int, width: int = 8) -> tuple[Array, Array]:
    """Ids and mask of rows of these lengths."""
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    return mask * np.arange(1, width + 1), mask


def _inputs(a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Array]:
    (a_ids, a_mask), (b_ids, b_mask) = _padded(*a), _padded(*b)
    arrays = {"a_input_ids": a_ids, "a_attention_mask": a_mask, "b_input_ids": b_ids, "b_attention_mask": b_mask}
    return {**arrays, "x": np.arange(3 * len(a), dtype=np.float32).reshape(-1, 3)}


@pytest.mark.parametrize(
    ("a", "b", "widths"), [((3, 5), (2, 1), (5, 2)), ((8, 1), (1, 1), (8, 1)), ((0, 0), (0, 4), (1, 4))]
)
def test_padding_common_to_a_texts_rows_is_cut_off(a: tuple[int, ...], b: tuple[int, ...], widths: tuple[int, int]):
    inputs = _inputs(a, b)
    found = trimmed(inputs, ARRAYS)
    assert found["a_input_ids"].shape == found["a_attention_mask"].shape == (2, widths[0])
    assert found["b_input_ids"].shape == found["b_attention_mask"].shape == (2, widths[1])
    for name, array in found.items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, inputs[name][:, : array.shape[1]])
    assert found["x"] is inputs["x"]


def test_rows_one_by_one_have_no_padding_and_come_back_in_the_shape_of_all():
    seen: list[tuple[int, int]] = []

    def run(rows: dict[str, Array]) -> dict[str, Array]:
        ids = rows["a_input_ids"]
        seen.append((ids.shape[1], rows["b_input_ids"].shape[1]))
        return {"tokens": ids[..., None] * np.float32(2), "sum": rows["x"].sum(axis=1, keepdims=True)}

    inputs = _inputs((3, 5, 0), (2, 1, 8))
    together = {"tokens": np.zeros((3, 5, 1), np.float32), "sum": np.zeros((3, 1), np.float32)}
    alone = one_by_one(run, inputs, ARRAYS, together)
    assert seen == [(3, 2), (5, 1), (1, 8)]
    np.testing.assert_array_equal(alone["tokens"][..., 0], inputs["a_input_ids"][:, :5] * 2)
    np.testing.assert_array_equal(alone["sum"], inputs["x"].sum(axis=1, keepdims=True))


def test_golden_texts_survive_their_file():
    texts = {"a": ["", "Zoë’s café 👩‍👩‍👧\n", 'a "quoted" \\ word\0'], "b": ["灯"] * 3}
    inputs = _inputs((1, 2, 3), (1, 1, 1))
    found = Golden.load(Golden(inputs, {"y": np.zeros((3, 1), np.float32)}, texts).dump())
    assert found.texts == texts
    assert found.rows == 3
    assert set(found.inputs) == set(inputs)


@pytest.mark.parametrize("array", [np.zeros(3, np.float32), np.zeros((1, 2), np.uint8), np.frombuffer(b"{}", np.uint8)])
def test_golden_texts_of_another_kind_are_refused(array: Array):
    data = safetensors.numpy.save({"inputs/x": np.zeros((1, 3), np.float32), "texts/a": array})
    with pytest.raises(ValueError, match="texts"):
        Golden.load(data)
