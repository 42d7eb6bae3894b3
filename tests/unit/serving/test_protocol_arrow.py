from __future__ import annotations

import io
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import RequestError
from polyhead.serving.protocol import arrow
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.settings import Settings

HEADS = {"digit": {"kind": "regression"}, "ink": {"kind": "regression"}}
MEDIA_TYPE = "application/vnd.apache.arrow.stream"


def model(**inputs: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1.0", "inputs": inputs, "heads": HEADS})


FLAT = model(x={"kind": "tensor", "shape": [3]})
ONE = model(x={"kind": "tensor", "shape": [1], "dtype": "int32"})
GRID = model(x={"kind": "tensor", "shape": [2, 3]})
MARKS = model(x={"kind": "tensor", "shape": [2], "dtype": "bool"})
FREE = model(x={"kind": "tensor", "shape": ["steps", 2]})
FREE_BOTH = model(x={"kind": "tensor", "shape": ["steps", "width"]})
TEXT = model(text={"kind": "text", "tokenizer": "t.json"})
IMAGE = model(image={"kind": "image", "size": [2, 3], "resize": "none"})
PAIR = model(x={"kind": "tensor", "shape": [3]}, text={"kind": "text", "tokenizer": "t.json"})


def stream(*batches: pa.RecordBatch | Mapping[str, Any], **options: Any) -> bytes:
    made = [b if isinstance(b, pa.RecordBatch) else pa.record_batch(dict(b)) for b in batches]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in made:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decode(body: Any, spec: ModelSpec = FLAT, headers: Mapping[str, str] | None = None, **limits: int) -> Query:
    return arrow.decode(HttpRequest(body, MEDIA_TYPE, headers or {}), spec, Settings(**limits))


def refusal(body: Any, spec: ModelSpec = FLAT, **limits: int) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, spec, **limits)
    return caught.value


ROWS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def fixed(array: Any) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(array)), np.shape(array)[1])


@pytest.mark.parametrize(
    "column",
    [
        fixed(ROWS),
        pa.array(ROWS.tolist(), pa.list_(pa.float32())),
        pa.array(ROWS.tolist(), pa.large_list(pa.float64())),
        pa.FixedShapeTensorArray.from_numpy_ndarray(ROWS),
        pa.array([None, *ROWS.tolist()], pa.list_(pa.float32(), 3))[1:],
        pa.array([[9], *ROWS.tolist()], pa.list_(pa.float32()))[1:],
    ],
    ids=["fixed", "list", "large", "tensor", "fixed, sliced", "list, sliced"],
)
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_list_of_numbers_is_a_row(column, wrap):
    query = decode(wrap(stream({"x": column}, {"x": column[1:]})), headers={"x-polyhead-heads": "ink"})
    assert (query.rows, query.single, query.heads) == (7, False, ("ink",))
    assert query.inputs["x"].dtype == np.float32
    np.testing.assert_allclose(query.inputs["x"], np.concatenate([ROWS, ROWS[1:]]), rtol=1e-7)


def test_numbers_of_one_batch_are_not_copied():
    body = bytearray(stream({"x": fixed(ROWS)}))
    assert np.shares_memory(decode(body).inputs["x"], np.frombuffer(body, np.uint8))


def test_bytes_out_of_alignment_are_read_all_the_same():
    body = stream({"x": fixed(ROWS)})
    for shift in range(1, 8):
        found = decode(memoryview(bytes(shift) + body)[shift:]).inputs["x"]
        np.testing.assert_array_equal(found, ROWS)
        assert found.ctypes.data % 4 == 0


@pytest.mark.parametrize(
    ("column", "spec", "rows"),
    [
        (pa.array([5, 6]), ONE, [[5], [6]]),
        (pa.array([[[1, 2, 3], [4, 5, 6]]] * 2), GRID, [[[1, 2, 3], [4, 5, 6]]] * 2),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(2, 2, 3)), GRID,
         np.arange(12.0).reshape(2, 2, 3).tolist()),
        (pa.array([[True, False], [False, True]]), MARKS, [[True, False], [False, True]]),
        (pa.array([[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]]), FREE, [[[1, 2]], [[3, 4], [5, 6]], [[7, 8]]]),
        (pa.array([[[1, 2]], [[3, 4]]], pa.list_(pa.list_(pa.float32(), 2))), FREE, [[[1, 2]], [[3, 4]]]),
        (pa.array([[[1, 2]], [[3], [5]]]), FREE_BOTH, [[[1, 2]], [[3], [5]]]),
        (pa.array([[[[1] * 3] * 3] * 2], pa.list_(pa.list_(pa.list_(pa.uint8(), 3)))), IMAGE, [[[[1] * 3] * 3] * 2]),
    ],
)  # fmt: skip
def test_lists_in_lists_are_dimensions(column, spec, rows):
    (found,) = decode(stream({next(iter(spec.inputs)): column}), spec).inputs.values()
    assert [np.asarray(row).tolist() for row in found] == rows


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_are_strings_of_any_layout(kind):
    texts = ["", "hello", "Zoë’s café 灯", "a text of more than twelve bytes", "hello"]
    column = pa.array(texts).dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else pa.array(texts, kind)
    assert decode(stream({"text": column}, {"text": column[3:]}), TEXT).inputs == {"text": [*texts, *texts[3:]]}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_images_are_files(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 3)).astype(np.uint8)
    files = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files.append(buffer.getvalue())
    found = decode(stream({"image": pa.array(files, kind)}), IMAGE)
    np.testing.assert_array_equal(found.inputs["image"], pixels)
    error = refusal(stream({"image": pa.array([files[0], files[0][:40]], kind)}), IMAGE)
    assert (error.status, error.loc) == (400, ("instances", 1, "image"))
    assert refusal(stream({"image": pa.array(files, kind)}), IMAGE, max_image_pixels=11).status == 413


NULL = pa.array([[1.0, 2, 3], None], pa.list_(pa.float32(), 3))
INNER = pa.array([[1.0, 2, 3], [4.0, None, 6]], pa.list_(pa.float32()))
NAN = fixed(np.array([[1, 2, 3], [4, np.inf, 6]], np.float32))
DICTIONARY = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", None]))


@pytest.mark.parametrize(
    ("columns", "spec", "kind", "loc", "message"),
    [
        ({"x": NULL}, FLAT, "invalid_instance", ("instances", 1, "x"), "input 'x': a null"),
        ({"x": INNER}, FLAT, "invalid_instance", ("instances", 1, "x"), "input 'x': a null"),
        ({"text": pa.array(["a", None])}, TEXT, "invalid_instance", ("instances", 1, "text"), "input 'text': a null"),
        ({"text": DICTIONARY}, TEXT, "invalid_instance", ("instances", 1, "text"), "input 'text': a null"),
        ({"x": NAN}, FLAT, "input_not_finite", ("instances", 1, "x"), "input 'x': 1 of 3 values are NaN or infinite"),
        (
            {"x": pa.array([[1.0, 2, 3], [1.0, 2]])},
            FLAT,
            "invalid_instance",
            ("inputs", "x"),
            "input 'x': shape [1, 2], ",
        ),
        ({"x": pa.array([[1.0, 2]])}, FLAT, "invalid_instance", ("inputs", "x"), "input 'x': shape [1, 2], wanted"),
        ({"x": pa.array([1.0])}, FLAT, "invalid_instance", ("inputs", "x"), "input 'x': shape [1], wanted [rows, 3]"),
        (
            {"x": pa.array([["a", "b", "c"]])},
            FLAT,
            "invalid_instance",
            ("inputs", "x"),
            "input 'x': a column of",
        ),
        ({"x": pa.array([["a"] * 3]).cast(pa.list_(pa.binary()))}, FLAT, "invalid_instance", ("inputs", "x"), "input"),
        ({"x": pa.array([[[1, 2], [3]]])}, FREE_BOTH, "invalid_instance", ("instances", 0, "x"), "input 'x': lists of"),
        ({"x": pa.array([[1.5]])}, ONE, "invalid_instance", ("inputs", "x"), "input 'x': wanted int32 numbers, got"),
        ({"x": pa.array([1, 2**40])}, ONE, "invalid_instance", ("instances", 1, "x"), "input 'x': values outside"),
        ({"x": pa.array([[1, 2]])}, MARKS, "invalid_instance", ("inputs", "x"), "input 'x': wanted bool numbers"),
        (
            {"text": pa.array([1])},
            TEXT,
            "invalid_instance",
            ("inputs", "text"),
            "input 'text': a column of int64",
        ),
        ({"y": fixed(ROWS)}, FLAT, "invalid_instance", ("inputs", "y"), "column 'y' is no input of model m 1.0"),
        ({"x": fixed(ROWS)}, PAIR, "invalid_instance", ("inputs", "text"), "column 'text' is missing"),
        ({"x": fixed(ROWS)[:0]}, FLAT, "invalid_instance", (), "there must be one row or more, got none"),
        ({"x": pa.nulls(3)}, FLAT, "invalid_instance", ("instances", 0, "x"), "input 'x': a null"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(columns, spec, kind, loc, message):
    error = refusal(stream(columns), spec)
    assert (error.status, error.type, error.loc) == (422, kind, loc)
    assert error.message.startswith(message)


def test_the_place_counts_rows_of_all_batches():
    good = {"x": fixed(ROWS)}
    bad = ROWS.copy()
    bad[2, 0] = np.nan
    assert refusal(stream(good, good, {"x": fixed(bad)})).loc == ("instances", 10, "x")


def test_a_column_twice_is_refused():
    batch = pa.record_batch([fixed(ROWS), fixed(ROWS)], names=["x", "x"])
    assert refusal(stream(batch)).message == "column 'x' stands more than once"


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_columns_are_read_within_the_bound(codec):
    rows = np.zeros((1000, 3), np.float32)
    body = stream({"x": fixed(rows)}, compression=codec)
    assert len(body) < 2000
    np.testing.assert_array_equal(decode(body, max_body_bytes=12_000).inputs["x"], rows)
    error = refusal(body, max_body_bytes=11_999)
    assert (error.status, error.type) == (413, "payload_too_large")
    assert error.message.startswith("the compressed columns are 12000 bytes when inflated, allowed are 11999")


def test_a_dictionary_that_says_one_text_many_times_is_bounded():
    text = "a" * 100_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(9_000, np.int32)), pa.array([text]))
    error = refusal(stream({"text": column}), TEXT)
    assert (error.status, error.loc) == (413, ("inputs", "text"))


@pytest.mark.parametrize("limits", [{"max_rows": 3}, {"max_input_bytes": 47}], ids=lambda limits: next(iter(limits)))
def test_bounds_of_rows_hold_over_all_batches(limits):
    assert refusal(stream({"x": fixed(ROWS[:2])}, {"x": fixed(ROWS[2:])}), **limits).status == 413


def test_rows_of_no_bytes_are_counted_before_anything_is_made_of_them():
    batch = pa.RecordBatch.from_arrays([pa.nulls(2**31 - 1)], names=["x"])
    assert refusal(stream(batch)).status == 413


def test_ten_thousand_rows_take_no_more_than_their_bytes():
    rows = np.random.default_rng(0).standard_normal((10_000, 768)).astype(np.float32)
    spec = model(x={"kind": "tensor", "shape": [768]})
    body = bytearray(stream(*({"x": fixed(part)} for part in np.split(rows, 10))))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        query = decode(body, spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(query.inputs["x"], rows)
    assert peak < 1.6 * rows.nbytes  # the columns joined, and a bool for each number of them
    assert pa.total_allocated_bytes() - before < 1_000_000


WHOLE = stream({"x": fixed(ROWS)}, {"x": fixed(ROWS)})
PACKED = stream({"x": fixed(ROWS)}, compression="lz4")
WORDS = stream({"text": pa.array(["a", "bc", "def"])}, {"text": pa.array(["g"])})


@pytest.mark.parametrize("body", [b"", b"\0" * 8, b"{}", b"ARROW1\0\0" + WHOLE, WHOLE[: len(WHOLE) // 2]])
def test_what_is_no_stream_is_malformed(body):
    error = refusal(body)
    assert (error.status, error.type, error.loc) == (400, "malformed_body", ())


@settings(max_examples=400, deadline=None, database=None)
@given(
    which=st.sampled_from([(WHOLE, FLAT), (PACKED, FLAT), (WORDS, TEXT)]),
    changes=st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.floats(0.3, 1.3),
)
def test_a_damaged_stream_is_read_or_refused(which, changes, keep):
    body, spec = bytearray(which[0]), which[1]
    for place, value in changes:
        body[place % len(body)] = value
    assert status(body[: int(len(body) * keep)], spec) in (200, 400, 413, 422)


@settings(max_examples=100, deadline=None, database=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(body):
    assert status(body, FLAT) in (400, 413, 422)


def status(body: Any, spec: ModelSpec) -> int:
    try:
        return 200 if decode(body, spec).rows else 0
    except RequestError as error:
        return error.status
