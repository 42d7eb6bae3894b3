"""The rows that the gate runs, beside what they were made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyhead.export import cases
from polyhead.models.arrays import array_specs
from polyhead.models.spec import ModelSpec
from polyhead.serving.golden import Array

KIND = {"kind": {"kind": "classification", "labels": ["a", "b"]}}
TEXT = {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 24}
STEPS = {"kind": "tensor", "shape": ["time", 2], "lengths": {"time": [3, 20]}, "pad": -1}


def spec(**inputs: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": KIND})


def words(*lengths: int, longest: int | None = None, prefix: str = "") -> dict[str, Array]:
    """Rows of these lengths, filled up with zeros; token ids are 1 and more, and no two are the same."""
    width = longest or max(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.arange(1, mask.size + 1).reshape(mask.shape) * mask
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}


def steps(rows: int, time: int) -> dict[str, Array]:
    return {"steps": np.arange(rows * time * 2, dtype=np.float32).reshape(rows, time, 2)}


def names(found: list[cases.Case]) -> list[str]:
    return [case.name for case in found]


# --- batch sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 5, 64, 70])
def test_every_batch_size_is_made_of_the_first_rows_which_are_repeated(rows):
    x = np.arange(rows, dtype=np.float32)
    found = list(cases.shapes(spec(x={"kind": "tensor", "shape": []}), [{"x": x}]))
    assert names(found) == ["batch 1", "batch 2", "batch 3", "batch 7", "batch 64"]
    for case, size in zip(found, cases.BATCHES, strict=True):
        np.testing.assert_array_equal(case.rows["x"], np.arange(size) % rows)
        assert case.rows["x"].flags.c_contiguous


@pytest.mark.parametrize("rows", [2, 5, 64, 70])
def test_each_row_is_fresh_in_one_case_alone(rows):
    x = np.arange(rows, dtype=np.float32)
    found = cases.shapes(spec(x={"kind": "tensor", "shape": []}), [{"x": x}])
    fresh = [value for case in found for value in case.rows["x"][case.fresh]]
    assert fresh == list(range(min(rows, 64)))


def test_padding_that_all_rows_of_a_case_have_is_cut_off():
    found = list(cases.shapes(spec(text=TEXT), [words(4, 6, 5, 9, 2, 2, 2)]))
    assert [case.rows["input_ids"].shape for case in found[:5]] == [(1, 4), (2, 6), (3, 6), (7, 9), (64, 9)]
    assert all(case.rows["attention_mask"].shape == case.rows["input_ids"].shape for case in found)


def test_rows_of_other_shapes_are_cases_of_their_own():
    model = spec(steps={"kind": "tensor", "shape": ["time", 2], "lengths": {"time": [3, 20]}})
    found = list(cases.shapes(model, [steps(9, 6), steps(5, 4), steps(70, 11)]))
    assert names(found)[5:7] == ["batch 5, time 4", "batch 64, time 11"]
    np.testing.assert_array_equal(found[5].rows["steps"], steps(5, 4)["steps"])
    assert found[5].fresh == slice(None)


# --- lengths --------------------------------------------------------------------------------------------------------


def test_the_least_and_the_greatest_number_of_tokens():
    rows = words(4, 6)
    least, greatest = list(cases.shapes(spec(text=TEXT), [rows]))[5:]
    assert (least.name, greatest.name) == ("1 tokens", "24 tokens")
    np.testing.assert_array_equal(least.rows["input_ids"], rows["input_ids"][:, :1])
    np.testing.assert_array_equal(greatest.rows["input_ids"], np.tile(rows["input_ids"], 4))
    for case in (least, greatest):
        np.testing.assert_array_equal(case.rows["attention_mask"], np.ones_like(case.rows["input_ids"]))


def test_the_least_and_the_greatest_of_a_free_dimension():
    found = list(cases.shapes(spec(steps=STEPS), [steps(4, 5)]))[5:]
    assert names(found) == ["time 3", "time 20"]
    assert [case.rows["steps"].shape for case in found] == [(2, 3, 2), (2, 20, 2)]
    np.testing.assert_array_equal(found[1].rows["steps"], np.tile(steps(2, 5)["steps"], (1, 4, 1)))


def test_of_several_dimensions_one_is_also_short_where_the_next_is_long():
    lengths = {"height": [2, 8], "width": [3, 9]}
    model = spec(x={"kind": "tensor", "shape": ["height", "width"], "lengths": lengths})
    found = list(cases.shapes(model, [{"x": np.zeros((2, 4, 4), np.float32)}]))[5:]
    assert names(found) == ["height 2, width 3", "height 8, width 9", "height 2, width 9"]
    assert [case.rows["x"].shape[1:] for case in found] == [(2, 3), (8, 9), (2, 9)]


def test_of_several_texts_each_has_its_own_length():
    model = spec(question=TEXT, answer={**TEXT, "max_length": 7})
    rows = words(3, 5, prefix="question_") | words(2, 2, prefix="answer_")
    found = list(cases.shapes(model, [rows]))[-1]
    assert found.rows["question_attention_mask"].shape == (2, 7 if found.name.startswith("7") else 1)
    assert {array.shape for array in found.rows.values()} == {(2, 1), (2, 7)}


@pytest.mark.parametrize(
    ("lengths", "wanted"), [([1, 4096], 2048), ([1, 2048], 2048), ([3000, 4096], 3000)], ids=["cut", "fits", "bound"]
)
def test_lengths_that_make_a_row_too_large_to_run_are_halved_down_to_the_least(lengths, wanted):
    both = {"height": lengths, "width": lengths}
    model = spec(x={"kind": "tensor", "dtype": "uint8", "shape": ["height", "width"], "lengths": both})
    greatest = list(cases.shapes(model, [{"x": np.zeros((2, 3, 4), np.uint8)}]))[6]
    assert greatest.name == f"height {wanted}, width {wanted}"
    assert greatest.rows["x"].shape == (2, wanted, wanted)
    assert wanted * wanted <= cases.MAX_ELEMENTS or wanted == lengths[0]


# --- ragged rows ----------------------------------------------------------------------------------------------------


def test_rows_that_have_padding_stay_as_they_are():
    rows = words(4, 6, 1)
    found = cases.ragged(spec(text=TEXT), rows)
    for name, array in rows.items():
        np.testing.assert_array_equal(found.rows[name], array)
    assert found.lengths["text_tokens"].tolist() == [4, 6, 1]
    assert found.padded


def test_a_row_without_a_token_has_one_of_padding():
    found = cases.ragged(spec(text=TEXT), words(3, 0))
    assert found.lengths["text_tokens"].tolist() == [3, 1]
    assert [row["attention_mask"].tolist() for row in found.alone()] == [[[1, 1, 1]], [[0]]]


def test_where_no_row_has_padding_every_second_is_cut_to_half():
    rows = words(6, 6, 6, 6)
    found = cases.ragged(spec(text=TEXT), rows)
    assert found.lengths["text_tokens"].tolist() == [6, 3, 6, 3]
    np.testing.assert_array_equal(found.rows["attention_mask"], words(6, 3, 6, 3)["attention_mask"])
    np.testing.assert_array_equal(found.rows["input_ids"], rows["input_ids"] * found.rows["attention_mask"])
    assert rows["attention_mask"].all()  # what was given is left alone


def test_a_tensor_is_filled_up_with_what_the_spec_says_and_not_below_its_least_length():
    found = cases.ragged(spec(steps=STEPS), steps(4, 5))
    assert found.lengths["time"].tolist() == [5, 3, 5, 3]
    wanted = steps(4, 5)["steps"]
    wanted[1::2, 3:] = -1
    np.testing.assert_array_equal(found.rows["steps"], wanted)
    assert found.rows["steps"].dtype == np.float32
    assert not found.padded  # nothing tells a network what is padding here, so nothing can be scrambled


@pytest.mark.parametrize(
    ("made", "name", "lengths"),
    [
        ((spec(text=TEXT), words(1, 1)), "text_tokens", [2, 1]),
        ((spec(steps=STEPS), steps(2, 3)), "time", [6, 3]),
        ((spec(steps={**STEPS, "lengths": {"time": [3, 4]}}), steps(2, 3)), "time", [4, 3]),
    ],
    ids=["texts of one token", "the least length", "hardly more"],
)
def test_rows_too_short_to_be_cut_are_made_longer_first(made, name, lengths):
    """Samples of the least length say nothing of padding, and a server fills up rows beside longer ones."""
    model, rows = made
    found = cases.ragged(model, rows)
    assert found.lengths[name].tolist() == lengths
    first = next(iter(found.rows.values()))
    assert first.shape[1] == lengths[0]
    assert (first[1, lengths[1] :] == array_specs(model)[next(iter(found.rows))].pad).all()


def test_dimensions_that_are_not_filled_up_are_not_cut():
    free = {"kind": "tensor", "shape": ["time", 2]}
    found = cases.ragged(spec(steps=free), steps(4, 5))
    assert found.lengths == {}
    np.testing.assert_array_equal(found.rows["steps"], steps(4, 5)["steps"])
    assert [row["steps"].shape for row in found.alone()] == [(1, 5, 2)] * 4


def test_a_dimension_that_inputs_share_has_one_length_in_a_row():
    valid = {"kind": "tensor", "dtype": "bool", "shape": ["time"], "pad": 0}
    found = cases.ragged(spec(steps=STEPS, valid=valid), steps(4, 6) | {"valid": np.ones((4, 6), bool)})
    assert found.lengths["time"].tolist() == [6, 3, 6, 3]
    assert found.rows["valid"].sum(axis=1).tolist() == [6, 3, 6, 3]
    assert found.rows["valid"].dtype == bool
    assert [(row["steps"].shape, row["valid"].shape) for row in found.alone()] == [
        ((1, time, 2), (1, time)) for time in (6, 3, 6, 3)
    ]


def test_no_more_rows_than_the_largest_batch():
    assert len(cases.ragged(spec(steps=STEPS), steps(70, 6)).rows["steps"]) == 64


def test_each_row_alone_is_the_row_without_its_padding():
    rows = words(4, 6, 1)
    for index, (alone, length) in enumerate(zip(cases.ragged(spec(text=TEXT), rows).alone(), (4, 6, 1), strict=True)):
        assert alone["attention_mask"].tolist() == [[1] * length]
        np.testing.assert_array_equal(alone["input_ids"], rows["input_ids"][index : index + 1, :length])
        assert alone["input_ids"].flags.c_contiguous


def test_each_row_by_itself_is_the_row_with_its_padding():
    rows = words(4, 6, 1)
    for index, single in enumerate(cases.ragged(spec(text=TEXT), rows).single()):
        for name, array in rows.items():
            np.testing.assert_array_equal(single[name], array[index : index + 1])


def test_scrambled_rows_hold_other_tokens_where_the_mask_says_padding_alone():
    found = cases.ragged(spec(text=TEXT), words(4, 6, 1))
    scrambled, valid = found.scrambled(), found.rows["attention_mask"] == 1
    np.testing.assert_array_equal(scrambled["attention_mask"], found.rows["attention_mask"])
    np.testing.assert_array_equal(scrambled["input_ids"][valid], found.rows["input_ids"][valid])
    assert (scrambled["input_ids"][~valid] != found.rows["input_ids"][~valid]).all()
    assert scrambled["input_ids"].max() == found.rows["input_ids"].max()  # an id that the network knows
    assert (found.rows["input_ids"][~valid] == 0).all()


def test_texts_are_scrambled_by_their_own_masks():
    model = spec(question=TEXT, answer=TEXT)
    rows = words(3, 5, prefix="question_") | words(4, 2, prefix="answer_")
    found = cases.ragged(model, rows)
    for text in ("question", "answer"):
        changed = found.scrambled()[f"{text}_input_ids"] != rows[f"{text}_input_ids"]
        np.testing.assert_array_equal(changed, rows[f"{text}_attention_mask"] == 0)


def test_the_hint_says_what_a_network_can_do_about_padding():
    assert cases.ragged(spec(text=TEXT), words(4, 6)).hint.endswith("the network must use attention_mask")
    assert cases.ragged(spec(steps=STEPS), steps(2, 6)).hint.endswith("give the network the lengths, or leave pad: out")


def test_outputs_of_single_rows_are_joined_in_the_shape_of_the_batch():
    together = {"kind": np.ones((2, 3), np.float32), "slots": np.ones((2, 4, 2), np.float32)}
    parts = [
        {"kind": np.full((1, 3), 5, np.float32), "slots": np.full((1, 4, 2), 6, np.float32)},
        {"kind": np.full((1, 3), 7, np.float32), "slots": np.full((1, 1, 2), 8, np.float32)},
    ]
    found = cases.joined(parts, together)
    assert found["kind"].tolist() == [[5, 5, 5], [7, 7, 7]]
    assert found["slots"][:, :, 0].tolist() == [[6, 6, 6, 6], [8, 0, 0, 0]]
    assert {name: array.dtype for name, array in found.items()} == {"kind": np.float32, "slots": np.float32}
