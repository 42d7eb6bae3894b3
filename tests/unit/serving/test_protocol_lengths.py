"""Rows of free dimensions, off the wire: within their bounds, each name of one length in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import InvalidInstance
from polyhead.serving.protocol import json, media
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.settings import Settings


def _spec(**inputs: Any) -> ModelSpec:
    heads = {"y": {"kind": "regression"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads})


STEPS = {"kind": "tensor", "shape": ["steps", 2], "lengths": {"steps": [2, 4]}}
ONE = _spec(x=STEPS)
SHARED = _spec(x=STEPS, mask={"kind": "tensor", "dtype": "bool", "shape": ["steps"]})
SQUARE = _spec(x={"kind": "tensor", "shape": ["n", "n"]})


def _json(spec: ModelSpec, *instances: Any) -> Query:
    return json.decode(HttpRequest(orjson.dumps({"instances": instances}), "application/json"), spec, Settings())


def _octets(spec: ModelSpec, data: bytes) -> Query:
    return media.decode(HttpRequest(data, "application/octet-stream"), spec, Settings())


def _row(steps: int) -> list[list[int]]:
    return [[n, -n] for n in range(steps)]


def test_rows_of_one_request_may_differ_in_length():
    query = _json(ONE, _row(3), {"x": _row(2)}, _row(4))
    assert [row.shape for row in query.inputs["x"]] == [(3, 2), (2, 2), (4, 2)]
    assert all(row.dtype == np.float32 for row in query.inputs["x"])
    np.testing.assert_array_equal(query.inputs["x"][2], _row(4))


def test_inputs_of_a_row_share_their_length():
    query = _json(SHARED, {"x": _row(3), "mask": [True] * 3}, {"mask": [False] * 2, "x": _row(2)})
    assert [(x.shape[0], mask.shape[0]) for x, mask in zip(*query.inputs.values(), strict=True)] == [(3, 3), (2, 2)]


@pytest.mark.parametrize(
    ("spec", "instances", "loc", "message"),
    [
        (ONE, [_row(2), _row(5)], (1, "x"), "input 'x': steps is 5, the model takes 2 to 4: cut the row, or send it"),
        (ONE, [_row(1)], (0, "x"), "input 'x': steps is 1, the model takes 2 to 4: send a longer row"),
        (ONE, [[]], (0, "x"), "input 'x': shape [0], wanted [steps, 2]"),
        (ONE, [_row(2), [[1, 2], [3]]], (1, "x"), "input 'x': lists of different lengths, wanted shape [steps, 2]"),
        (ONE, [[[1, 2, 3]] * 3], (0, "x"), "input 'x': shape [3, 3], wanted [steps, 2]"),
        (
            SHARED,
            [{"x": _row(3), "mask": [True] * 3}, {"x": _row(3), "mask": [True] * 2}],
            (1, "mask"),
            "input 'mask': steps is 2, and 3 in input 'x': dimensions of one name must be of one length in a row",
        ),
        (SHARED, [{"x": _row(2), "mask": [True] * 5}], (0, "mask"), "input 'mask': steps is 5, the model takes 2 to 4"),
        (SQUARE, [[[1, 2], [3, 4]], [[1, 2]]], (1, "x"), "input 'x': n is 2, and 1 on another axis: dimensions of one"),
        (SQUARE, [[[1] * 1025] * 1025], (0, "x"), "input 'x': n is 1025, the model takes 1 to 1024: cut the row"),
    ],
)
def test_rows_of_another_length_are_refused_with_their_place(
    spec: ModelSpec, instances: list[Any], loc: tuple[Any, ...], message: str
):
    with pytest.raises(InvalidInstance) as caught:
        _json(spec, *instances)
    assert (caught.value.status, caught.value.loc) == (422, ("instances", *loc))
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_the_length_of_a_body_of_bytes_is_inferred(steps: int):
    values = np.arange(steps * 2, dtype="<f4").reshape(steps, 2)
    query = _octets(ONE, values.tobytes())
    (row,) = query.inputs["x"]
    np.testing.assert_array_equal(row, values)


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        (ONE, 8, "input 'x': steps is 1, the model takes 2 to 4: send a longer row"),
        (ONE, 40, "input 'x': steps is 5, the model takes 2 to 4: cut the row, or send it in parts"),
        (ONE, 20, "input 'x': 20 bytes, wanted float32 little-endian of shape [steps, 2] (a multiple of 8 bytes)"),
        (SQUARE, 16, "input 'x': 16 bytes do not tell the lengths in shape [n, n]: send JSON"),
    ],
)
def test_bytes_of_another_length_are_refused(spec: ModelSpec, size: int, message: str):
    with pytest.raises(InvalidInstance) as caught:
        _octets(spec, bytes(size))
    assert (caught.value.status, caught.value.loc, caught.value.message) == (422, (), message)
