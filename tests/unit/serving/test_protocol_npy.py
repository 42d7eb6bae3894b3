from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import RequestError
from polyhead.serving.protocol import npy
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

HEADS = {"digit": {"kind": "regression"}, "ink": {"kind": "regression"}}


def model(**inputs: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1.0", "inputs": inputs, "heads": HEADS})


FLAT = model(x={"kind": "tensor", "shape": [3]})
FREE = model(x={"kind": "tensor", "shape": ["steps", 2], "lengths": {"steps": [1, 5]}})
WHOLE = model(x={"kind": "tensor", "shape": [2], "dtype": "int32"})
MARKS = model(x={"kind": "tensor", "shape": [2], "dtype": "bool"})
GRAY = model(image={"kind": "image", "size": [2, 3], "channels": "gray"})


def saved(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def decode(body: Any, spec: ModelSpec = FLAT, headers: dict[str, str] | None = None, **limits: int) -> Query:
    return npy.decode(HttpRequest(body, "application/x-npy", headers or {}), spec, Settings(**limits))


def refusal(body: Any, spec: ModelSpec = FLAT, **limits: int) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, spec, **limits)
    return caught.value


ROWS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f8", "<i8", ">i2", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_any_layout_become_the_specs(dtype, order):
    array = np.asarray(ROWS * 7, dtype=dtype, order=order)
    query = decode(saved(array))
    assert (query.rows, query.single, query.heads) == (4, False, ("digit", "ink"))
    assert query.inputs["x"].dtype == np.float32
    assert query.inputs["x"].flags.c_contiguous
    np.testing.assert_array_equal(query.inputs["x"], array.astype(np.float32))


@settings(max_examples=100, deadline=None, database=None)
@given(hnp.arrays(st.sampled_from(["<f4", ">f8", "<i4", "|b1", "<u2"]), hnp.array_shapes(max_dims=4)), st.booleans())
def test_what_numpy_saves_is_read_as_numpy_reads_it(array, fortran):
    found = npy.read(saved(np.asfortranarray(array) if fortran else array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_numbers_of_the_specs_own_dtype_are_not_copied():
    body = bytearray(saved(ROWS))
    assert np.shares_memory(decode(body).inputs["x"], np.frombuffer(body, np.uint8))


def test_the_header_names_heads():
    assert decode(saved(ROWS), headers={"x-polyhead-heads": "ink"}).heads == ("ink",)


def test_rows_of_free_dimensions_are_read_one_by_one():
    array = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    query = decode(saved(array), FREE)
    assert [row.tolist() for row in query.inputs["x"]] == array.tolist()


def test_pixels_are_read_with_and_without_their_channel():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    for array in (pixels, pixels[..., None]):
        np.testing.assert_array_equal(decode(saved(array), GRAY).inputs["image"], pixels[..., None])


NAN = ROWS.copy()
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("array", "spec", "kind", "loc", "message"),
    [
        (ROWS[:, :2], FLAT, "invalid_instance", (), "input 'x': shape [4, 2], wanted [rows, 3]"),
        (ROWS[0], FLAT, "invalid_instance", (), "input 'x': shape [3], wanted [rows, 3]"),
        (NAN, FLAT, "input_not_finite", ("instances", 2, "x"), "input 'x': 1 of 3 values are NaN or infinite"),
        (np.full((2, 3), 1e39), FLAT, "input_not_finite", ("instances", 0, "x"), "input 'x': 3 of 3 values are NaN"),
        (np.array([[1, 2], [3, 2**31]]), WHOLE, "invalid_instance", ("instances", 1, "x"), "input 'x': values outside"),
        (ROWS[:, :2], WHOLE, "invalid_instance", (), "input 'x': wanted int32 numbers, got float32"),
        (np.ones((2, 2), np.uint8), MARKS, "invalid_instance", (), "input 'x': wanted bool numbers, got uint8"),
        (np.zeros((0, 3), np.float32), FLAT, "invalid_instance", (), "the .npy file holds no numbers"),
        (np.float32(3), FLAT, "invalid_instance", (), "input 'x': one number"),
        (np.array([["a", "b", "c"]]), FLAT, "invalid_instance", (), "an array of dtype '<U1' is no array of numbers"),
        (np.zeros((1, 3), np.complex64), FLAT, "invalid_instance", (), "an array of dtype '<c8'"),
        (np.zeros((1, 9, 2), np.float32), FREE, "invalid_instance", ("instances", 0, "x"), "input 'x': steps is 9"),
        (np.zeros((1, 2, 2), np.uint8), GRAY, "invalid_instance", (), "input 'image': shape [1, 2, 2], wanted"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(array, spec, kind, loc, message):
    error = refusal(saved(array), spec)
    assert (error.status, error.type, error.loc) == (422, kind, loc)
    assert error.message.startswith(message)


def test_pickles_are_never_opened():
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    body = saved(np.array([Trap()], dtype=object), allow_pickle=True)
    assert refusal(body).message == "an array of dtype '|O' is no array of numbers: convert it first"


def header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    size = len(text).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPX\x01\x00" + saved(ROWS)[8:],
        b"\x93NUMPY\x03\x00" + saved(ROWS)[8:],
        saved(ROWS)[:-1],
        saved(ROWS) + b"\0",
        saved(ROWS)[:100],
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }", bytes(12)),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), 'shape': (1, 3)}", bytes(12)),
        header("{'descr': '<f4', 'fortran_order': False}", bytes(12)),
        header("{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (1, 3)}", bytes(12)),
        header("(" * 3000),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 1500 + "), }", bytes(4)),
        header("x" * 60000),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(20),
    ],
)
def test_what_is_no_whole_file_is_malformed(body):
    assert refusal(body).type == "malformed_body"


@pytest.mark.parametrize("version", [1, 2])
def test_other_writers_of_the_format_are_read(version):
    text = "{\"shape\":(2L, 3), \"fortran_order\":False, 'descr':'<f4'}  \n"
    assert decode(header(text, ROWS[:2].tobytes(), version)).inputs["x"].tolist() == ROWS[:2].tolist()


def test_bounds_hold():
    error = refusal(saved(ROWS), max_rows=3)
    assert (error.status, error.message) == (413, "4 rows, allowed are 3 a request")
    error = refusal(saved(ROWS.astype(np.uint8)), max_input_bytes=47)
    assert (error.status, error.message[:30]) == (413, "4 rows are 48 bytes for the mo")
    error = refusal(saved(np.zeros((2, 5, 2), np.uint8)), FREE, max_input_bytes=79)
    assert error.status == 413


def test_a_text_is_no_array():
    error = refusal(saved(ROWS), model(text={"kind": "text", "tokenizer": "t.json"}))
    assert (error.status, error.type) == (415, "unsupported_media_type")


@settings(max_examples=300, deadline=None, database=None)
@given(at=st.integers(0, 140), new=st.binary(max_size=6), cut=st.integers(0, 150))
def test_a_damaged_file_is_read_or_refused(at, new, cut):
    body = saved(ROWS)
    body = (body[:at] + new + body[at + len(new) :])[: len(body) - cut * (cut > 100)]
    assert status(body) in (200, 400, 413, 422)


def status(body: bytes) -> int:
    try:
        return 200 if decode(body).rows else 0
    except RequestError as error:
        return error.status


# --- answers --------------------------------------------------------------------------------------------------------


def test_one_heads_numbers_come_back_as_the_graph_gave_them(mlp):
    responder = Responder(mlp.engine(), Settings())
    x = mlp.samples["x"][:5]
    plain = orjson.dumps({"instances": x.tolist(), "options": {"raw": True}})
    (told,) = responder.respond([HttpRequest(plain, "application/json")])
    for head in ("color", "level", "position", "vector"):
        headers = {"accept": npy_type, "x-polyhead-heads": head}
        (response,) = responder.respond([HttpRequest(saved(x), npy_type, headers)])
        assert (response.status, response.content_type) == (200, npy_type)
        raw = [row[head]["raw"] for row in orjson.loads(told.body)["predictions"]]
        np.testing.assert_allclose(np.load(io.BytesIO(response.body), allow_pickle=False), raw, rtol=1e-5, atol=1e-6)


npy_type = "application/x-npy"


def test_several_heads_are_no_one_array(mlp):
    (response,) = Responder(mlp.engine(), Settings()).respond(
        [HttpRequest(saved(mlp.samples["x"][:1]), npy_type, {"accept": npy_type})]
    )
    body = orjson.loads(response.body)
    assert (response.status, body["type"]) == (406, "not_acceptable")
    assert body["error"].startswith("application/x-npy holds the numbers of one head, and 5 are wanted")


def test_tokens_are_as_long_as_the_requests_own_longest_text(lexicon):
    responder = Responder(lexicon.engine(), Settings())
    headers = {"accept": npy_type}

    def ask(*texts: str) -> HttpRequest:
        body = {"instances": [{"text": text} for text in texts], "heads": ["slots"]}
        return HttpRequest(orjson.dumps(body), "application/json", headers)

    alone = responder.respond([ask("hello", "turn on")])[0]
    beside = responder.respond([ask("hello", "turn on"), ask("hello there " * 5)])[0]
    array = np.load(io.BytesIO(alone.body))
    np.testing.assert_array_equal(array, np.load(io.BytesIO(beside.body)))
    assert array.shape == (2, 4, 5)
    assert not array[0, 3].any()
