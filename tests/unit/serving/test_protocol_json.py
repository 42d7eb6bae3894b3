from __future__ import annotations

import base64
import json as strict_json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.models.spec import ImageInput, ModelSpec, TextInput
from polyhead.serving.errors import RequestError
from polyhead.serving.protocol import images, json
from polyhead.serving.request import HttpRequest, Options, Query
from polyhead.serving.settings import Settings

HEADS = {"digit": {"kind": "regression"}, "ink": {"kind": "regression"}}


def _spec(**inputs: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1.0", "inputs": inputs, "heads": HEADS})


def _tensor(dtype: str, *shape: int | str, **more: Any) -> dict[str, Any]:
    return {"kind": "tensor", "dtype": dtype, "shape": list(shape), **more}


FLOAT = _spec(x=_tensor("float32", 3))
SCALAR = _spec(x=_tensor("float32"))
BYTES = _spec(x=_tensor("uint8", 2))
LONG = _spec(x=_tensor("int64", 2))
BOOL = _spec(x=_tensor("bool", 2))
HALF = _spec(x=_tensor("float16", 2))
FREE = _spec(x=_tensor("float32", "steps", 2))
FREE_LAST = _spec(x=_tensor("float32", 2, "steps"))
TWO = _spec(a=_tensor("float32", 2), b=_tensor("int64", 1))
GRAY = _spec(image={"kind": "image", "size": [2, 3], "channels": "gray"})
RGB = _spec(image={"kind": "image", "size": [2, 2]})
TEXT = _spec(text={"kind": "text", "tokenizer": "t.json"})
SPECS = {"float": FLOAT, "bytes": BYTES, "bool": BOOL, "free": FREE, "two": TWO, "gray": GRAY, "rgb": RGB, "text": TEXT}


def _decode(body: bytes | Any, spec: ModelSpec = FLOAT, **limits: int) -> Query:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return json.decode(HttpRequest(data, "application/json"), spec, Settings(**limits))


def _png(spec: ModelSpec, pixels: list[Any]) -> str:
    declared = spec.inputs["image"]
    assert isinstance(declared, ImageInput)
    return base64.b64encode(images.encode_png(np.asarray(pixels, dtype=np.uint8), declared)).decode()


# --- bodies that are read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instances",
    [
        [[1, 2.5, -3], [4, 5, 6]],
        [{"x": [1, 2.5, -3]}, {"x": [4, 5, 6]}],
        [[1, 2.5, -3], {"x": [4, 5, 6]}],
    ],
    ids=["bare values", "objects", "both"],
)
def test_instances_of_one_input_may_name_it_or_not(instances: list[Any]):
    query = _decode({"instances": instances})
    assert query.rows == 2
    assert not query.single
    assert query.heads == ("digit", "ink")
    assert query.options == Options()
    array = query.inputs["x"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([[1, 2.5, -3], [4, 5, 6]], dtype=np.float32))


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (SCALAR, 2, np.float32(2)),
        (BYTES, [0, 255], np.array([0, 255], np.uint8)),
        (LONG, [-(2**63), 2**63 - 1], np.array([-(2**63), 2**63 - 1], np.int64)),
        (BOOL, [True, False], np.array([True, False])),
        (HALF, [65504, -0.5], np.array([65504, -0.5], np.float16)),
        (FLOAT, [18446744073709551615, 1e-45, -1e38], np.array([18446744073709551615, 1e-45, -1e38], np.float32)),
    ],
    ids=["scalar", "uint8", "int64", "bool", "float16", "float32"],
)
def test_values_are_read_into_the_dtype_of_the_spec(spec: ModelSpec, value: Any, expected: Any):
    array = _decode({"instances": [value]}, spec).inputs["x"]
    assert array.dtype == expected.dtype
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, expected[None])


def test_several_inputs_are_taken_by_name_whatever_their_order():
    query = _decode({"instances": [{"b": [7], "a": [1, 2]}, {"a": [3, 4], "b": [8]}]}, TWO)
    np.testing.assert_array_equal(query.inputs["a"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(query.inputs["b"], [[7], [8]])


def test_rows_of_free_shape_stay_apart():
    rows = _decode({"instances": [[[1, 2]], [[3, 4], [5, 6]]]}, FREE).inputs["x"]
    assert isinstance(rows, list)
    assert [row.shape for row in rows] == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(rows[1], [[3, 4], [5, 6]])


def test_heads_and_options_are_taken():
    query = _decode({"instances": [[1, 2, 3]], "heads": ["ink"], "options": {"top_k": 2, "raw": True}})
    assert query.heads == ("ink",)
    assert query.options == Options(top_k=2, raw=True)


def test_null_heads_and_options_are_the_defaults():
    query = _decode({"instances": [[1, 2, 3]], "heads": None, "options": None})
    assert (query.heads, query.options) == (("digit", "ink"), Options())


GRAY_PIXELS = [[0, 10, 20], [30, 40, 255]]


@pytest.mark.parametrize(
    "instance",
    [
        {"b64": _png(GRAY, [[[v] for v in row] for row in GRAY_PIXELS])},
        {"image": {"b64": _png(GRAY, [[[v] for v in row] for row in GRAY_PIXELS])}},
        GRAY_PIXELS,
        {"image": GRAY_PIXELS},
        [[[v] for v in row] for row in GRAY_PIXELS],
    ],
    ids=["bare b64", "named b64", "bare pixels", "named pixels", "pixels with depth"],
)
def test_an_image_comes_as_base64_or_as_pixels(instance: Any):
    pixels = _decode({"instances": [instance]}, GRAY).inputs["image"]
    assert pixels.shape == (1, 2, 3, 1)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[0, ..., 0], GRAY_PIXELS)


def test_as_many_rows_as_allowed_are_read():
    assert _decode({"instances": [[1, 2, 3]] * 5}, max_rows=5).rows == 5


# --- bodies that are refused ----------------------------------------------------------------------------------------

DEEP = b"[" * 10_000 + b"]" * 10_000

MALFORMED = [
    (b"", ""),
    (b"   ", ""),
    (b"{", ""),
    (b'{"instances": [[1, 2, 3]]} x', ""),
    (b"{'instances': [[1, 2, 3]]}", ""),
    (b'{"instances": [[NaN, 2, 3]]}', ""),
    (b'{"instances": [[Infinity, 2, 3]]}', ""),
    (b'{"instances": [[1e400, 2, 3]]}', "infinity"),
    (b'{"instances": [[-1e400, 2, 3]]}', "infinity"),
    (b'{"instances": [[' + b"9" * 5000 + b", 2, 3]]}", "infinity"),
    (b'{"instances": [[01, 2, 3]]}', ""),
    (b'{"instances": [[1, 2, 3],]}', ""),
    (b'{"instances": ["\xff\xfe"]}', "UTF-8"),
    (b'{"instances": ["\\ud800"]}', ""),
    (b"\0\0\0\0", ""),
    (b'{"instances": [[1, 2, 3]]}\0', ""),
    (b'\xef\xbb\xbf{"instances": [[1, 2, 3]]}', ""),
    ('{"instances": [[1, 2, 3]]}'.encode("utf-16"), ""),
    (b"\x89PNG\r\n\x1a\n", ""),
    (DEEP, "depth"),
    (b'{"instances": ' + DEEP + b"}", "depth"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "depth"),
    (b"[" * 10_000, ""),
]


@pytest.mark.parametrize(("body", "fragment"), MALFORMED, ids=[repr(body[:24]) for body, _ in MALFORMED])
def test_a_body_that_is_no_json_is_malformed(body: bytes, fragment: str):
    with pytest.raises(RequestError) as caught:
        _decode(body)
    error = caught.value
    assert (error.status, error.type, error.loc) == (400, "malformed_body", ())
    assert error.message.startswith("the body is not JSON: ")
    assert fragment in error.message
    assert len(error.message) < 200


WRONG_BODY = [
    ([], "invalid_instance", (), 'the body must be an object: {"instances": [...]}'),
    ("text", "invalid_instance", (), 'the body must be an object: {"instances": [...]}'),
    (3, "invalid_instance", (), 'the body must be an object: {"instances": [...]}'),
    (None, "invalid_instance", (), 'the body must be an object: {"instances": [...]}'),
    (
        {"instances": [[1, 2, 3]], "inputs": 1},
        "unknown_option",
        ("inputs",),
        "key 'inputs' is not known (keys: instances, heads, options)",
    ),
    (
        {"Instances": [[1, 2, 3]]},
        "unknown_option",
        ("Instances",),
        "key 'Instances' is not known (keys: instances, heads, options)",
    ),
    ({}, "invalid_instance", ("instances",), '"instances" must be a list of one row or more'),
    ({"instances": None}, "invalid_instance", ("instances",), '"instances" must be a list of one row or more'),
    ({"instances": []}, "invalid_instance", ("instances",), '"instances" must be a list of one row or more'),
    ({"instances": {"x": [1]}}, "invalid_instance", ("instances",), '"instances" must be a list of one row or more'),
    ({"instances": "abc"}, "invalid_instance", ("instances",), '"instances" must be a list of one row or more'),
    (
        {"instances": [[1, 2, 3]], "heads": ["nose"]},
        "unknown_head",
        ("heads", 0),
        "head 'nose' is not in model m 1.0 (heads: digit, ink): check \"heads\"",
    ),
    (
        {"instances": [[1, 2, 3]], "heads": "ink"},
        "invalid_instance",
        ("heads",),
        '"heads" must be a list of head names (heads: digit, ink)',
    ),
    (
        {"instances": [[1, 2, 3]], "options": {"top": 1}},
        "unknown_option",
        ("options", "top"),
        "option 'top' is not known (options: top_k, scores, raw, mask)",
    ),
]


@pytest.mark.parametrize(("body", "kind", "loc", "message"), WRONG_BODY, ids=[str(case[0])[:40] for case in WRONG_BODY])
def test_a_body_of_the_wrong_form_is_refused(body: Any, kind: str, loc: tuple[str, ...], message: str):
    with pytest.raises(RequestError) as caught:
        _decode(body)
    error = caught.value
    assert (error.status, error.type, error.loc, error.message) == (422, kind, loc, message)


def test_more_rows_than_allowed_are_too_large():
    with pytest.raises(RequestError) as caught:
        _decode({"instances": [[1, 2, 3]] * 6}, max_rows=5)
    error = caught.value
    assert (error.status, error.type, error.loc) == (413, "payload_too_large", ("instances",))
    assert error.message == "6 rows, allowed are 5 a request"


RAGGED = "input 'x': lists of different lengths, wanted shape [3]"
WRONG_ROW = [
    # spec, a bad row, a good row to stand before it, type, rest of loc, message
    (FLOAT, [1, 2], [1, 2, 3], "invalid_instance", "x", "input 'x': shape [2], wanted [3]"),
    (FLOAT, [1, 2, 3, 4], [1, 2, 3], "invalid_instance", "x", "input 'x': shape [4], wanted [3]"),
    (FLOAT, [], [1, 2, 3], "invalid_instance", "x", "input 'x': shape [0], wanted [3]"),
    (FLOAT, [[]], [1, 2, 3], "invalid_instance", "x", "input 'x': shape [1, 0], wanted [3]"),
    (FLOAT, 1, [1, 2, 3], "invalid_instance", "x", "input 'x': shape [], wanted [3]"),
    (FLOAT, [[1, 2, 3]], [1, 2, 3], "invalid_instance", "x", "input 'x': shape [1, 3], wanted [3]"),
    (FLOAT, [1, [2], 3], [1, 2, 3], "invalid_instance", "x", RAGGED),
    (FLOAT, [[1], [2, 3], [4]], [1, 2, 3], "invalid_instance", "x", RAGGED),
    (FLOAT, [1, "2", 3], [1, 2, 3], "invalid_instance", "x", "input 'x': wanted float32 numbers, got a string"),
    (FLOAT, "123", [1, 2, 3], "invalid_instance", "x", "input 'x': wanted float32 numbers, got a string"),
    (FLOAT, [1, None, 3], [1, 2, 3], "invalid_instance", "x", "input 'x': wanted float32 numbers, got null"),
    (FLOAT, None, [1, 2, 3], "invalid_instance", "x", "input 'x': wanted float32 numbers, got null"),
    (FLOAT, [1, {}, 3], [1, 2, 3], "invalid_instance", "x", "input 'x': wanted float32 numbers, got an object"),
    (FLOAT, [1e39, 2, 3], [1, 2, 3], "input_not_finite", "x", "input 'x': 1 of 3 values are NaN or infinite"),
    (FLOAT, [1e300, -1e300, 3], [1, 2, 3], "input_not_finite", "x", "input 'x': 2 of 3 values are NaN or infinite"),
    (HALF, [70000, 1], [1, 2], "input_not_finite", "x", "input 'x': 1 of 2 values are NaN or infinite"),
    (BYTES, [0, 256], [1, 2], "invalid_instance", "x", "input 'x': values outside 0 to 255 of uint8"),
    (BYTES, [-1, 0], [1, 2], "invalid_instance", "x", "input 'x': values outside 0 to 255 of uint8"),
    (BYTES, [1.0, 2], [1, 2], "invalid_instance", "x", "input 'x': wanted uint8 numbers, got 1.0"),
    (LONG, [1.5, 2], [1, 2], "invalid_instance", "x", "input 'x': wanted int64 numbers, got 1.5"),
    (LONG, [1e3, 2e3], [1, 2], "invalid_instance", "x", "input 'x': wanted int64 numbers, got 1000.0"),
    (
        LONG,
        [2**63, 2**63],
        [1, 2],
        "invalid_instance",
        "x",
        f"input 'x': values outside {-(2**63)} to {2**63 - 1} of int64",
    ),
    (BOOL, [0, 1], [True, False], "invalid_instance", "x", "input 'x': wanted bool numbers, got 0"),
    (FREE, [[1, 2, 3]], [[1, 2]], "invalid_instance", "x", "input 'x': shape [1, 3], wanted [steps, 2]"),
    (FREE, [], [[1, 2]], "invalid_instance", "x", "input 'x': shape [0], wanted [steps, 2]"),
    (FREE_LAST, [[], []], [[1], [2]], "invalid_instance", "x", "input 'x': shape [2, 0], wanted [2, steps]"),
    (GRAY, [[1, 2], [3, 4]], GRAY_PIXELS, "invalid_instance", "image", "input 'image': shape [2, 2], wanted [2, 3]"),
    (
        GRAY,
        [[0, 10, 20], [30, 40, 256]],
        GRAY_PIXELS,
        "invalid_instance",
        "image",
        "input 'image': values outside 0 to 255 of uint8",
    ),
]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("spec", "bad", "good", "kind", "name", "message"), WRONG_ROW, ids=[str(case[1])[:30] for case in WRONG_ROW]
)
def test_a_wrong_row_is_named(spec: ModelSpec, bad: Any, good: Any, kind: str, name: str, message: str, index: int):
    with pytest.raises(RequestError) as caught:
        _decode({"instances": [*[good] * index, {name: bad}, good]}, spec)
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, kind, ("instances", index, name))
    assert error.message == message


@pytest.mark.parametrize("spec", [FLOAT, BYTES, LONG, HALF], ids=["float32", "uint8", "int64", "float16"])
def test_truth_values_are_no_numbers(spec: ModelSpec):
    shape = spec.inputs["x"].shape  # type: ignore[union-attr]
    with pytest.raises(RequestError) as caught:
        _decode({"instances": [[True] * shape[0]] * 2}, spec)
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "invalid_instance", ("instances", 0, "x"))
    assert error.message.endswith("numbers, got true or false")


@pytest.mark.parametrize(
    ("spec", "instance", "loc", "message"),
    [
        (FLOAT, {}, ("x",), "input 'x' is missing"),
        (FLOAT, {"y": [1, 2, 3]}, ("y",), "input 'y' is not in model m (inputs: x)"),
        (FLOAT, {"x": [1, 2, 3], "y": 1}, ("y",), "input 'y' is not in model m (inputs: x)"),
        (TWO, {"a": [1, 2]}, ("b",), "input 'b' is missing"),
        (TWO, {"a": [1, 2], "b": [1], "c": 1}, ("c",), "input 'c' is not in model m (inputs: a, b)"),
        (TWO, [1, 2], (), "a row must be an object with a, b"),
        (TWO, None, (), "a row must be an object with a, b"),
        (GRAY, {"b64": "", "more": 1}, ("b64",), "input 'b64' is not in model m (inputs: image)"),
    ],
)
def test_a_row_with_other_inputs_is_refused(spec: ModelSpec, instance: Any, loc: tuple[str, ...], message: str):
    with pytest.raises(RequestError) as caught:
        _decode({"instances": [instance]}, spec)
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "invalid_instance", ("instances", 0, *loc))
    assert error.message == message


@pytest.mark.parametrize("instances", [["hello", ""], [{"text": "hello"}, {"text": ""}], ["hello", {"text": ""}]])
def test_texts_may_be_named_or_not(instances: list[Any]):
    query = _decode({"instances": instances}, TEXT)
    assert (query.rows, query.inputs["text"]) == (2, ["hello", ""])


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (3, "3"),
        (None, "null"),
        (True, "true or false"),
        (["hello"], "a list"),
        ([], "a list"),
        ([["a", 1]], "a list"),
    ],
)
@pytest.mark.parametrize("index", [0, 2])
def test_what_is_no_string_is_no_text(value: Any, got: str, index: int):
    with pytest.raises(RequestError) as caught:
        _decode({"instances": [*["hello"] * index, value, "there"]}, TEXT)
    error = caught.value
    assert (error.status, error.type, error.loc) == (422, "invalid_instance", ("instances", index, "text"))
    assert error.message == f"input 'text': wanted a string, got {got}"


@pytest.mark.parametrize("text", [rb"\ud800", rb"\udc00\ud800", rb"a\uD83Db", b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_text_that_is_no_unicode_is_malformed(text: bytes):
    with pytest.raises(RequestError) as caught:
        _decode(b'{"instances": ["' + text + b'"]}', TEXT)
    assert (caught.value.status, caught.value.type) == (400, "malformed_body")
    assert caught.value.message.startswith("the body is not JSON: ")


NO_IMAGE = (
    'an image is {"b64": "<PNG or JPEG in base64>"} or nested lists of pixels, '
    "[height][width][channels] from 0 to 255; got "
)


@pytest.mark.parametrize(
    ("value", "status", "loc", "message"),
    [
        ({"b64": "%%%"}, 400, ("image", "b64"), "b64 is not valid base64"),
        ({"b64": "ä"}, 400, ("image", "b64"), "b64 is not valid base64"),
        ({"b64": "AAA"}, 400, ("image", "b64"), "b64 is not valid base64"),
        ({"b64": ""}, 400, ("image", "b64"), "the 0 bytes are no whole PNG or JPEG image: send the file as it is"),
        ({"b64": "AAAA"}, 400, ("image", "b64"), "the 3 bytes are no whole PNG or JPEG image: send the file as it is"),
        ({"b64": 3}, 422, ("image",), NO_IMAGE + "an object"),
        ({"b64": None}, 422, ("image",), NO_IMAGE + "an object"),
        ({"url": "http://127.0.0.1/"}, 422, ("image",), NO_IMAGE + "an object"),
        ("http://127.0.0.1/a.png", 422, ("image",), NO_IMAGE + "a string"),
        (None, 422, ("image",), NO_IMAGE + "null"),
        (7, 422, ("image",), NO_IMAGE + "7"),
    ],
)
def test_a_wrong_image_is_refused(value: Any, status: int, loc: tuple[str, ...], message: str):
    with pytest.raises(RequestError) as caught:
        _decode({"instances": [GRAY_PIXELS, {"image": value}]}, GRAY)
    error = caught.value
    assert (error.status, error.loc, error.message) == (status, ("instances", 1, *loc), message)


@pytest.mark.parametrize("name", list(SPECS))
@pytest.mark.parametrize("depth", [32, 33, 63, 64, 65, 500])
def test_nesting_that_is_still_json_is_refused_as_a_row(name: str, depth: int):
    body = b'{"instances":[' + b"[" * depth + b"1" + b"]" * depth + b"]}"
    with pytest.raises(RequestError) as caught:
        _decode(body, SPECS[name])
    assert caught.value.status == 422
    assert caught.value.loc[:2] == ("instances", 0)


def test_a_long_key_is_quoted_in_part():
    with pytest.raises(RequestError) as caught:
        _decode({"k" * 10_000: 1})
    assert len(caught.value.message) < 150


# --- any body at all ------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, -1, 255, 256, 2**31, 2**53 + 1, 1e39, -0.0, 5e-324]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
KEYS = st.one_of(st.sampled_from(["x", "a", "b", "image", "b64", "instances", "top_k", "raw"]), st.text(max_size=4))
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
ROWS = st.one_of(ANYTHING, st.lists(NUMBERS, max_size=4), st.lists(st.lists(NUMBERS, max_size=3), max_size=3))
BODIES = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {"instances": st.lists(st.one_of(ROWS, st.dictionaries(KEYS, ROWS, max_size=2)), max_size=4)},
        optional={
            "heads": st.one_of(ANYTHING, st.lists(st.sampled_from(["digit", "ink", "nose"]), max_size=3)),
            "options": st.one_of(ANYTHING, st.dictionaries(st.sampled_from(["top_k", "scores", "raw"]), LEAVES)),
        },
    ),
)
FUZZ = settings(max_examples=250, deadline=None, database=None)


def _outcome(body: bytes, spec: ModelSpec) -> Query | RequestError:
    try:
        return _decode(body, spec)
    except RequestError as error:
        return error


def _assert_read_or_refused(body: bytes, spec: ModelSpec) -> None:
    """Either a query that keeps the promises of its attributes, or a refusal that can be sent."""
    outcome = _outcome(body, spec)
    if isinstance(outcome, RequestError):
        assert 400 <= outcome.status < 500
        sent = orjson.loads(json.encode_error(outcome))
        assert sent == {"error": outcome.message, "type": outcome.type, "loc": list(outcome.loc)}
        return
    assert set(outcome.heads) <= {"digit", "ink"}
    assert outcome.heads
    for name, declared in spec.inputs.items():
        rows = outcome.inputs[name]
        assert len(rows) == outcome.rows >= 1
        for row in rows:
            if isinstance(declared, TextInput):
                assert row.encode()
                continue
            assert np.isfinite(row).all()
            assert row.dtype == (np.uint8 if isinstance(declared, ImageInput) else np.dtype(declared.dtype))


@FUZZ
@given(name=st.sampled_from(sorted(SPECS)), body=BODIES)
def test_any_json_is_read_or_refused(name: str, body: Any):
    _assert_read_or_refused(orjson.dumps(body), SPECS[name])


@FUZZ
@given(name=st.sampled_from(sorted(SPECS)), body=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(name: str, body: bytes):
    _assert_read_or_refused(body, SPECS[name])


GOOD = orjson.dumps({"instances": [[1, 2.5, -3]], "heads": ["ink"], "options": {"raw": True}})


@FUZZ
@given(at=st.integers(0, len(GOOD) - 1), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_a_damaged_body_is_read_or_refused(at: int, new: bytes, cut: int):
    _assert_read_or_refused(GOOD[:at] + new + GOOD[at + cut :], FLOAT)


# --- answers --------------------------------------------------------------------------------------------------------

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@FUZZ
@given(values=st.lists(FINITE, min_size=1, max_size=8))
def test_float32_values_survive_the_wire_bit_for_bit(values: list[float]):
    array = np.asarray(values, dtype=np.float32)
    body = json.document([{"v": {"vector": array, "value": array[0], "scores": {"a": array[-1]}}}], single=True)
    answer = strict_json.loads(body, parse_constant=pytest.fail)["v"]
    np.testing.assert_array_equal(np.asarray(answer["vector"], np.float32).view(np.uint32), array.view(np.uint32))
    assert np.float32(answer["value"]).tobytes() == array[0].tobytes()
    assert np.float32(answer["scores"]["a"]).tobytes() == array[-1].tobytes()


def test_float32_is_written_in_its_own_shortest_form():
    assert json.document([{"v": {"value": np.float32(0.1)}}], single=True) == b'{"v":{"value":0.1}}'


def test_one_row_stands_alone_and_many_in_a_list():
    answers = [{"h": {"label": "a", "index": 0}}, {"h": {"label": "ü", "index": 1}}]
    assert json.document(answers[:1], single=True) == b'{"h":{"label":"a","index":0}}'
    assert json.document(answers[:1], single=False) == b'{"predictions":[{"h":{"label":"a","index":0}}]}'
    assert orjson.loads(json.document(answers, single=False)) == {"predictions": answers}


def test_arrays_of_no_and_of_many_values_are_lists():
    answers = [{"h": {"scores": np.empty(0, np.float32), "vector": np.array([1.5, -0.0, 1e-45], np.float32)}}]
    answer = orjson.loads(json.document(answers, single=True))["h"]
    assert answer["scores"] == []
    assert answer["vector"][0] == 1.5
    assert math.copysign(1, answer["vector"][1]) == -1
    assert np.float32(answer["vector"][2]) == np.float32(1e-45)
