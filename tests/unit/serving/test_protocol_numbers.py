"""The fast way through a JSON body of numbers is the careful one, wherever it says anything at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import RequestError
from polyhead.serving.protocol import json
from polyhead.serving.protocol.numbers import FlatNumbers
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.settings import Settings


def _spec(dtype: str = "float32", shape: Any = (3,), **more: Any) -> ModelSpec:
    inputs = {"x": {"kind": "tensor", "dtype": dtype, "shape": list(shape)}} | more
    heads = {"a": {"kind": "regression"}, "b": {"kind": "regression"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads})


LIMITS = Settings(max_rows=4)
SPECS = {dtype: _spec(dtype) for dtype in ("float32", "float16", "float64")}
READERS = {dtype: FlatNumbers(spec, LIMITS) for dtype, spec in SPECS.items()}


def _same(one: Query, other: Query) -> bool:
    same = (one.rows, one.heads, one.options, one.single) == (other.rows, other.heads, other.options, other.single)
    a, b = one.inputs["x"], other.inputs["x"]
    return same and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _outcome(decode: Any, request: HttpRequest, spec: ModelSpec) -> Any:
    """A query, or the error's body."""
    try:
        return decode(request, spec, LIMITS)
    except RequestError as error:
        return type(error), error.body()


def _assert_as_the_careful_way(body: bytes, dtype: str = "float32") -> bool:
    """Whether the fast way was taken."""
    request, spec = HttpRequest(body, "application/json"), SPECS[dtype]
    careful, fast = (_outcome(decode, request, spec) for decode in (json.decode, READERS[dtype].decode))
    if isinstance(careful, Query) and isinstance(fast, Query):
        assert _same(fast, careful)
    else:
        assert fast == careful
    return READERS[dtype].read(body) is not None


ROW = [1.5, -2, 3e-3]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("dtype", SPECS)
def test_ordinary_bodies_take_the_fast_way(dtype: str, kind: Any):
    for content in (
        {"instances": [ROW]},
        {"instances": [{"x": ROW}, ROW]},
        {"instances": [{"x": ROW}] * 4, "heads": ["b", "a"], "options": {"raw": True}},
    ):
        body = orjson.dumps(content)
        assert _assert_as_the_careful_way(body, dtype)
        assert READERS[dtype].read(kind(body)) is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[true, 1, 2]]}',
        b'{"instances": [[null, 1, 2]]}',
        b'{"instances": [["1", 1, 2]]}',
        b'{"instances": [[1, 2]]}',
        b'{"instances": [[1, 2, 3], [1, 2]]}',
        b'{"instances": [[[1, 2, 3]]]}',
        b'{"instances": [[[1, 2], [], 3]]}',
        b'{"instances": [[1, 2, [3]]]}',
        b'{"instances": []}',
        b'{"instances": [[1,2,3],[1,2,3],[1,2,3],[1,2,3],[1,2,3]]}',
        b'{"instances": [[1, 2, 1e39]]}',
        b'{"instances": [[1, 2, 1e400]]}',
        b'{"instances": [[1, 2, 65520]]}',
        b'{"instances": [[9007199254740993, 9007199791611905, 3]]}',
        b'{"instances": [[1, 2, 3]], "instances": [[4, 5, 6]]}',
        b'{"instances": [{"x": [1, 2, 3], "x": [4, 5, 6]}]}',
        b'{"instances": [{"y": [1, 2, 3]}]}',
        b'{"instances": [{"x": [1, 2, 3], "y": 1}]}',
        b'{"instances": [[1, 2, 3]], "heads": ["c"]}',
        b'{"instances": [[1, 2, 3]], "heads": "a"}',
        b'{"instances": [[1, 2, 3]], "heads": [["a"]]}',
        b'{"instances": [[1, 2, 3]], "options": {"top": 1}}',
        b'{"instances": [[1, 2, 3]], "options": [1]}',
        b'{"instances": [[1, 2, 3]], "extra": 1}',
        b'{"instances": {"x": [1, 2, 3]}}',
        b'{"instances": 3}',
        b'\xef\xbb\xbf{"instances": [[1, 2, 3]]}',
        b' {"instances": [[1, 2, 3]]}',
        b'{"instances": [[1, 2, 3]]} x',
        b'{"instances": [[1, 2, NaN]]}',
        b'{"instances": [[1, 2, 03]]}',
        b'{"\xff": [[1, 2, 3]]}',
        b"[" * 2000 + b"]" * 2000,
        b'{"instances": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b"[[1, 2, 3]]",
        b"",
    ],
)
@pytest.mark.parametrize("dtype", SPECS)
def test_odd_bodies_come_out_as_they_would_the_careful_way(body: bytes, dtype: str):
    _assert_as_the_careful_way(body, dtype)


NUMBER = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**64), 2**65), st.booleans())


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.lists(NUMBER, min_size=2, max_size=4), min_size=1, max_size=3), dtype=st.sampled_from([*SPECS]))
def test_any_numbers_are_read_alike(rows: list[list[Any]], dtype: str):
    text = "[" + ",".join("[" + ",".join(repr(v).lower() for v in row) + "]" for row in rows) + "]"
    _assert_as_the_careful_way(b'{"instances":' + text.encode() + b"}", dtype)


GOOD = orjson.dumps({"instances": [{"x": ROW}, ROW], "heads": ["b"], "options": {"top_k": 2}})


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_a_damaged_body_is_read_alike(at: int, new: bytes, cut: int):
    _assert_as_the_careful_way(GOOD[:at] + new + GOOD[at + cut :])


@pytest.mark.parametrize(
    "spec",
    [_spec("int64"), _spec(shape=(2, 3)), _spec(shape=("n",)), _spec(y={"kind": "tensor", "shape": [1]})],
    ids=["integers", "two dimensions", "a free dimension", "two inputs"],
)
def test_other_models_have_no_fast_way(spec: ModelSpec):
    assert not FlatNumbers.fits(spec)
    assert FlatNumbers.fits(SPECS["float32"])


def test_no_number_is_shared_between_bodies():
    reader = READERS["float64"]
    (first, _), (second, _) = reader.read(b'{"instances":[[1,2,3]]}'), reader.read(b'{"instances":[[4,5,6]]}')
    np.testing.assert_array_equal([first[0], second[0]], [[1, 2, 3], [4, 5, 6]])
