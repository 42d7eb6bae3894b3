from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving.collate import Batch, Collator, RowsNotFinite, cheapest_cuts, collate
from polyhead.serving.golden import Array
from polyhead.serving.request import Query


def _spec(**inputs: dict[str, Any]) -> ModelSpec:
    heads = {"answer": {"kind": "regression"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads})


FIXED = _spec(x={"kind": "tensor", "shape": [2]})
TWO = _spec(x={"kind": "tensor", "shape": [2]}, image={"kind": "image", "size": [2, 2]})
FREE = _spec(x={"kind": "tensor", "shape": ["steps", 2]})
PADDED = _spec(x={"kind": "tensor", "shape": ["steps", 2], "pad": -1})
PADDED_BOTH = _spec(x={"kind": "tensor", "dtype": "int64", "shape": ["steps", "width"], "pad": 9})


def _query(**inputs: Any) -> Query:
    return Query(len(next(iter(inputs.values()))), inputs, ("answer",))


def _rows(start: int, count: int) -> Array:
    """Rows that tell their number: [n, n + 0.5]."""
    return np.array([[n, n + 0.5] for n in range(start, start + count)], dtype=np.float32)


def _sequence(number: int, steps: int) -> Array:
    return np.full((steps, 2), number, dtype=np.float32)


def _assert_covers(batches: list[Batch], total: int) -> None:
    """Every row is in exactly one batch, and every batch as long as its positions."""
    assert sorted(np.concatenate([batch.positions for batch in batches]).tolist()) == list(range(total))
    for batch in batches:
        assert all(len(array) == len(batch.positions) for array in batch.inputs.values())
        assert all(array.flags.c_contiguous for array in batch.inputs.values())


def test_rows_of_many_requests_are_one_batch_in_their_order():
    (batch,) = collate(FIXED, [_query(x=_rows(0, 1)), _query(x=_rows(1, 3)), _query(x=_rows(4, 2))], 100)
    np.testing.assert_array_equal(batch.inputs["x"], _rows(0, 6))
    np.testing.assert_array_equal(batch.positions, np.arange(6))


def test_several_inputs_stay_aligned():
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 2, 2, 3), np.uint8)
    queries = [_query(x=_rows(0, 2), image=pixels[:2]), _query(image=pixels[2:], x=_rows(2, 3))]
    (batch,) = collate(TWO, queries, 100)
    assert list(batch.inputs) == ["x", "image"]
    np.testing.assert_array_equal(batch.inputs["x"][:, 0], batch.inputs["image"][:, 0, 0, 0])
    assert batch.inputs["image"].dtype == np.uint8


def test_a_lone_request_is_not_copied():
    rows = _rows(0, 4)
    (batch,) = collate(FIXED, [_query(x=rows)], 100)
    assert batch.inputs["x"] is rows or np.shares_memory(batch.inputs["x"], rows)


def test_a_lone_request_that_is_not_contiguous_is_made_so():
    wide = np.zeros((3, 4), np.float32)
    (batch,) = collate(FIXED, [_query(x=wide[:, ::2])], 100)
    assert batch.inputs["x"].flags.c_contiguous


def test_requests_together_do_not_write_into_each_other():
    rows = [_rows(0, 2), _rows(2, 2)]
    (batch,) = collate(FIXED, [_query(x=part) for part in rows], 100)
    batch.inputs["x"][:] = 0
    np.testing.assert_array_equal(rows[0], _rows(0, 2))


@pytest.mark.parametrize(
    ("max_rows", "sizes"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (8, [7])]
)
def test_no_batch_has_more_rows_than_allowed(max_rows: int, sizes: list[int]):
    batches = collate(FIXED, [_query(x=_rows(0, 5)), _query(x=_rows(5, 2))], max_rows)
    assert [len(batch.positions) for batch in batches] == sizes
    _assert_covers(batches, 7)
    np.testing.assert_array_equal(np.concatenate([batch.inputs["x"] for batch in batches]), _rows(0, 7))


def test_free_rows_of_one_shape_are_one_batch():
    rows = [_sequence(n, 3) for n in range(4)]
    (batch,) = collate(FREE, [_query(x=rows[:1]), _query(x=rows[1:])], 100)
    np.testing.assert_array_equal(batch.inputs["x"], np.stack(rows))
    np.testing.assert_array_equal(batch.positions, np.arange(4))


def test_free_rows_are_grouped_by_shape_and_know_their_places():
    steps = [3, 1, 3, 2, 1, 3]
    rows = [_sequence(n, count) for n, count in enumerate(steps)]
    batches = collate(FREE, [_query(x=rows[:2]), _query(x=rows[2:3]), _query(x=rows[3:])], 100)
    _assert_covers(batches, 6)
    assert [(batch.inputs["x"].shape, batch.positions.tolist()) for batch in batches] == [
        ((3, 3, 2), [0, 2, 5]),
        ((2, 1, 2), [1, 4]),
        ((1, 2, 2), [3]),
    ]
    restored = np.empty(6)
    for batch in batches:
        restored[batch.positions] = batch.inputs["x"][:, 0, 0]
    np.testing.assert_array_equal(restored, np.arange(6))


def test_groups_are_cut_at_the_limit_too():
    rows = [_sequence(n, 1 + n % 2) for n in range(7)]
    batches = collate(FREE, [_query(x=rows)], 3)
    _assert_covers(batches, 7)
    assert [batch.positions.tolist() for batch in batches] == [[0, 2, 4], [6], [1, 3, 5]]
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs["x"][:, 0, 0], batch.positions)


def test_pad_fills_up_to_the_longest_row():
    rows = [_sequence(1, 1), _sequence(2, 3), _sequence(3, 2)]
    (batch,) = collate(PADDED, [_query(x=rows[:1]), _query(x=rows[1:])], 100)
    np.testing.assert_array_equal(
        batch.inputs["x"][..., 0],
        np.array([[1, -1, -1], [2, 2, 2], [3, 3, -1]], dtype=np.float32),
    )
    np.testing.assert_array_equal(batch.inputs["x"][..., 0], batch.inputs["x"][..., 1])
    assert batch.inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(batch.positions, np.arange(3))


def test_pad_fills_every_free_dimension():
    rows = [np.array([[1, 2]]), np.array([[3], [4]])]
    (batch,) = collate(PADDED_BOTH, [_query(x=rows)], 100)
    np.testing.assert_array_equal(batch.inputs["x"], [[[1, 2], [9, 9]], [[3, 9], [4, 9]]])
    assert batch.inputs["x"].dtype == np.int64


def test_rows_of_one_length_are_not_padded():
    rows = [_sequence(n, 2) for n in range(3)]
    (batch,) = collate(PADDED, [_query(x=rows)], 100)
    np.testing.assert_array_equal(batch.inputs["x"], np.stack(rows))


def test_a_fixed_input_beside_a_free_one_follows_its_row():
    spec = _spec(x={"kind": "tensor", "shape": ["steps", 2]}, y={"kind": "tensor", "shape": [2]})
    rows = [_sequence(n, 1 + n % 2) for n in range(4)]
    batches = collate(spec, [_query(x=rows[:3], y=_rows(0, 3)), _query(x=rows[3:], y=_rows(3, 1))], 100)
    _assert_covers(batches, 4)
    assert len(batches) == 2
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs["y"][:, 0], batch.positions)
        np.testing.assert_array_equal(batch.inputs["x"][:, 0, 0], batch.positions)


# --- texts ----------------------------------------------------------------------------------------------------------

TEXT = _spec(t={"kind": "text", "tokenizer": "t.json", "max_length": 20})
MIXED = _spec(
    a={"kind": "text", "tokenizer": "t.json", "max_length": 20},
    x={"kind": "tensor", "shape": [2]},
    b={"kind": "text", "tokenizer": "t.json", "max_length": 12},
)
NONE = np.zeros((0, 2), dtype=np.int64)


def _encoding(number: int, tokens: int) -> Encoding:
    """A text whose tokens all tell its number."""
    return Encoding("", np.full(tokens, number, dtype=np.int64), NONE[:, 0], NONE)


def _encodings(*lengths: int, start: int = 1) -> list[Encoding]:
    return [_encoding(number, length) for number, length in enumerate(lengths, start)]


def test_texts_are_ids_and_a_mask_padded_with_zeros():
    (batch,) = collate(TEXT, [_query(t=_encodings(2, 5)), _query(t=_encodings(1, start=3))], 100)
    assert list(batch.inputs) == ["input_ids", "attention_mask"]
    np.testing.assert_array_equal(
        batch.inputs["input_ids"], [[1, 1, 0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(batch.inputs["attention_mask"], batch.inputs["input_ids"] != 0)
    assert all(array.dtype == np.int64 for array in batch.inputs.values())
    _assert_covers([batch], 3)


@pytest.mark.parametrize(("longest", "width"), [(1, 8), (7, 8), (8, 8), (9, 16), (16, 16), (17, 20), (20, 20), (0, 8)])
def test_lengths_are_rounded_up_and_never_beyond_what_the_model_takes(longest: int, width: int):
    (batch,) = collate(TEXT, [_query(t=_encodings(longest, 0))], 100)
    assert batch.inputs["input_ids"].shape == batch.inputs["attention_mask"].shape == (2, width)
    np.testing.assert_array_equal(batch.inputs["attention_mask"].sum(axis=1), [longest, 0])


def test_each_text_has_its_own_length_and_the_tensor_follows_its_row():
    query = _query(a=_encodings(3, 17), x=_rows(1, 2), b=_encodings(9, 1))
    more = _query(a=_encodings(1, start=3), x=_rows(3, 1), b=_encodings(2, start=3))
    (batch,) = collate(MIXED, [query, more], 100)
    assert {name: array.shape for name, array in batch.inputs.items()} == {
        "a_input_ids": (3, 20),
        "a_attention_mask": (3, 20),
        "x": (3, 2),
        "b_input_ids": (3, 12),
        "b_attention_mask": (3, 12),
    }
    for name in ("a_input_ids", "b_input_ids", "x"):
        np.testing.assert_array_equal(batch.inputs[name][:, 0], [1, 2, 3])


@pytest.mark.parametrize("max_rows", [1, 2, 3, 7])
def test_texts_of_like_length_go_together_where_there_are_many(max_rows: int):
    lengths = [18, 2, 9, 1, 17, 3, 10]
    queries = [_query(t=_encodings(*lengths[:4], start=0)), _query(t=_encodings(*lengths[4:], start=4))]
    batches = collate(TEXT, queries, max_rows)
    _assert_covers(batches, 7)
    assert all(len(batch.positions) <= max_rows for batch in batches)
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs["input_ids"][:, 0], batch.positions)
        np.testing.assert_array_equal(batch.inputs["attention_mask"].sum(axis=1), np.array(lengths)[batch.positions])
    tokens = sum(batch.inputs["input_ids"].size for batch in batches)
    assert tokens == {1: 96, 2: 108, 3: 104, 7: 140}[max_rows]  # as they came, three at a time are 136


# A limit of tokens


LIMITED = _spec(text={"kind": "text", "tokenizer": "tokenizer.json", "max_length": 64})


def _of_lengths(*lengths: int) -> Query:
    nothing = np.zeros(0, dtype=np.int64)
    rows = [
        Encoding("", np.full(length, number + 1, dtype=np.int64), nothing, nothing.reshape(0, 2))
        for number, length in enumerate(lengths)
    ]
    return _query(text=rows)


def test_texts_within_the_limit_are_one_batch_in_their_order():
    (batch,) = collate(LIMITED, [_of_lengths(3, 9, 1)], 100, max_tokens=27)
    np.testing.assert_array_equal(batch.positions, [0, 1, 2])
    assert batch.inputs["attention_mask"].sum(axis=1).tolist() == [3, 9, 1]


@pytest.mark.parametrize(("limit", "sizes"), [(26, [2, 1]), (9, [2, 1]), (2, [1, 1, 1]), (1, [1, 1, 1])])
def test_texts_beyond_the_limit_go_in_several_by_their_length(limit: int, sizes: list[int]):
    batches = collate(LIMITED, [_of_lengths(3, 9, 1)], 100, max_tokens=limit)
    _assert_covers(batches, 3)
    assert [len(batch.positions) for batch in batches] == sizes
    for batch in batches:
        assert batch.inputs["input_ids"].max(axis=1).tolist() == (batch.positions + 1).tolist()
        longest = int(batch.inputs["attention_mask"].sum(axis=1).max())
        assert len(batch.positions) == 1 or len(batch.positions) * longest <= limit


# --- several inputs with free dimensions, and limits of bytes -------------------------------------------------------

SHARED = _spec(
    x={"kind": "tensor", "shape": ["steps", 2], "pad": -1},
    mask={"kind": "tensor", "dtype": "bool", "shape": ["steps"], "pad": 0},
    t={"kind": "text", "tokenizer": "t.json", "max_length": 20},
    size={"kind": "tensor", "dtype": "int64", "shape": []},
)
PICTURES = _spec(
    pixels={"kind": "tensor", "dtype": "uint8", "shape": ["height", "width"]},
    depth={"kind": "tensor", "dtype": "float16", "shape": ["height", "width", 1]},
    x={"kind": "tensor", "shape": ["steps", 2], "pad": 0},
)


def _shared(*steps: int, start: int = 0) -> Query:
    return _query(
        x=[_sequence(start + n, count) for n, count in enumerate(steps)],
        mask=[np.ones(count, bool) for count in steps],
        t=_encodings(*steps, start=start + 1),
        size=np.arange(start, start + len(steps)),
    )


def test_inputs_that_share_a_dimension_are_filled_up_to_one_length():
    (batch,) = collate(SHARED, [_shared(2, 5), _shared(3, start=2)], 100)
    assert {name: array.shape for name, array in batch.inputs.items()} == {
        "x": (3, 5, 2),
        "mask": (3, 5),
        "input_ids": (3, 8),
        "attention_mask": (3, 8),
        "size": (3,),
    }
    np.testing.assert_array_equal(batch.inputs["mask"].sum(axis=1), [2, 5, 3])
    np.testing.assert_array_equal(batch.inputs["x"][..., 0] == -1, ~batch.inputs["mask"])
    np.testing.assert_array_equal(batch.inputs["size"], [0, 1, 2])
    assert batch.inputs["mask"].dtype == bool
    assert batch.inputs["size"].dtype == np.int64


@pytest.mark.parametrize("max_rows", [1, 2, 3, 4])
def test_rows_that_share_a_dimension_stay_whole_in_batches_of_any_size(max_rows: int):
    batches = collate(SHARED, [_shared(2, 5, 1), _shared(3, start=3)], max_rows)
    _assert_covers(batches, 4)
    for batch in batches:
        assert batch.inputs["x"].shape[:2] == batch.inputs["mask"].shape
        np.testing.assert_array_equal(batch.inputs["x"][:, 0, 0], batch.positions)
        np.testing.assert_array_equal(batch.inputs["size"], batch.positions)
        np.testing.assert_array_equal(batch.inputs["mask"].sum(axis=1), np.array([2, 5, 1, 3])[batch.positions])
        np.testing.assert_array_equal(batch.inputs["attention_mask"].sum(axis=1), batch.inputs["mask"].sum(axis=1))


def test_rows_are_grouped_by_the_dimensions_that_are_not_filled_up():
    sizes = [(2, 3), (3, 2), (2, 3), (2, 3)]
    query = _query(
        pixels=[np.full(size, n, np.uint8) for n, size in enumerate(sizes)],
        depth=[np.full((*size, 1), n, np.float16) for n, size in enumerate(sizes)],
        x=[_sequence(n, n + 1) for n in range(4)],
    )
    batches = collate(PICTURES, [query], 100)
    _assert_covers(batches, 4)
    assert [batch.positions.tolist() for batch in batches] == [[0, 2, 3], [1]]
    assert [batch.inputs["x"].shape for batch in batches] == [(3, 4, 2), (1, 2, 2)]
    for batch in batches:
        assert batch.inputs["depth"].shape == (*batch.inputs["pixels"].shape, 1)
        for name, dtype in (("pixels", np.uint8), ("depth", np.float16), ("x", np.float32)):
            assert batch.inputs[name].dtype == dtype
            np.testing.assert_array_equal(batch.inputs[name].reshape(len(batch.positions), -1)[:, 0], batch.positions)


@pytest.mark.parametrize(
    ("limit", "sizes"), [(None, [5]), (5 * 64, [5]), (5 * 64 - 1, [4, 1]), (48, [3, 1, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_padding_counts_against_the_limit_of_bytes(limit: int | None, sizes: list[int]):
    rows = [_sequence(n, steps) for n, steps in enumerate([8, 1, 2, 1, 3])]  # 8 bytes a step
    batches = collate(PADDED, [_query(x=rows)], 100, max_bytes=limit)
    _assert_covers(batches, 5)
    assert [len(batch.positions) for batch in batches] == sizes
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs["x"][:, 0, 0], batch.positions)
        assert limit is None or len(batch.positions) == 1 or batch.inputs["x"].nbytes <= limit


def test_rows_that_are_not_padded_are_cut_at_the_limit_of_bytes_too():
    rows = [_sequence(n, 2) for n in range(5)]
    batches = collate(FREE, [_query(x=rows)], 100, max_bytes=32)
    assert [batch.positions.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_the_longest_of_every_dimension_counts():
    wide, high = np.ones((1, 9), np.int64), np.ones((9, 1), np.int64)  # together 9 x 9
    together = collate(PADDED_BOTH, [_query(x=[wide, high])], 100, max_bytes=2 * 81 * 8)
    apart = collate(PADDED_BOTH, [_query(x=[wide, high])], 100, max_bytes=2 * 81 * 8 - 1)
    assert [batch.inputs["x"].shape for batch in together] == [(2, 9, 9)]
    assert [batch.inputs["x"].shape for batch in apart] == [(1, 1, 9), (1, 9, 1)]


# --- bytes that are looked at together ------------------------------------------------------------------------------


def test_bytes_and_arrays_of_several_requests_are_one_array():
    rows = _rows(0, 6)
    parts = [rows[:1].tobytes(), rows[1:3], memoryview(bytearray(rows[3:5].tobytes())), rows[5:]]
    (batch,) = collate(FIXED, [Query(n, {"x": part}, ()) for n, part in zip((1, 2, 2, 1), parts, strict=True)], 100)
    np.testing.assert_array_equal(batch.inputs["x"], rows)


@pytest.mark.parametrize("others", [bytes, np.asarray], ids=["bytes", "arrays"])
def test_every_row_that_is_not_finite_is_named(others: Any):
    rows = _rows(0, 6)
    rows[1, 0] = np.nan
    rows[4] = np.inf, -np.inf
    good = rows[:1].tobytes() if others is bytes else rows[:1]
    queries = [Query(1, {"x": good}, ()), Query(5, {"x": rows[1:].tobytes()}, ())]
    with pytest.raises(RowsNotFinite) as caught:
        collate(FIXED, queries, 100)
    assert caught.value.rows == {1: 1, 4: 2}
    assert caught.value.text(4) == "input 'x': 2 of 2 values are NaN or infinite"


def test_bytes_that_do_not_lie_on_a_boundary_are_copied_to_one():
    rows = _rows(0, 2)
    body = memoryview(bytearray(b"?" + rows.tobytes()))[1:]
    (batch,) = collate(FIXED, [Query(2, {"x": body}, ())], 100)
    assert batch.inputs["x"].flags.aligned
    np.testing.assert_array_equal(batch.inputs["x"], rows)


def test_a_buffer_that_is_used_again_holds_the_new_rows_alone():
    collator = Collator(FIXED, 100)
    for start, count in ((0, 3), (10, 2), (20, 9), (40, 2)):
        parts = [_query(x=_rows(start, 1)), _query(x=_rows(start + 1, count - 1))]
        (batch,) = collator.batches(parts)
        np.testing.assert_array_equal(batch.inputs["x"], _rows(start, count))


# --- padding against passes -----------------------------------------------------------------------------------------


def _cost(lengths: list[int], cuts: tuple[int, ...], pass_tokens: float) -> float:
    below = (0, *cuts)
    parts = [[n for n in lengths if low < n <= high] for low, high in itertools.pairwise(below)]
    return sum(pass_tokens + max(part) * len(part) for part in parts if part)


@given(lengths=st.lists(st.integers(1, 6).map(lambda n: n * 8), min_size=1, max_size=12), tokens=st.integers(0, 200))
def test_texts_are_parted_where_it_costs_the_least(lengths: list[int], tokens: int):
    found = tuple(cheapest_cuts(lengths, tokens))
    assert list(found) == sorted(found)
    assert found[-1] == max(lengths)
    sizes = sorted(set(lengths) - {max(lengths)})
    choices = [(*cuts, max(lengths)) for n in range(len(sizes) + 1) for cuts in itertools.combinations(sizes, n)]
    assert _cost(lengths, found, tokens) == min(_cost(lengths, cuts, tokens) for cuts in choices)


def test_texts_of_like_length_go_together_where_a_pass_is_cheap():
    queries = [_query(t=_encodings(3, 20, 4)), _query(t=_encodings(2, 18))]
    assert len(Collator(TEXT, 100, pass_tokens=10_000).batches(queries)) == 1
    short, long = Collator(TEXT, 100, pass_tokens=16).batches(queries)
    assert (short.positions.tolist(), long.positions.tolist()) == ([0, 2, 3], [1, 4])
    assert short.inputs["input_ids"].shape == (3, 8)
