"""What a graph takes at its door, of every kind of input."""

from __future__ import annotations

import pytest

from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.models.inputs import LENGTHS
from polyhead.models.spec import ModelSpec, SpecError

HEADS = {"y": {"kind": "regression"}}
TEXT = {"kind": "text", "tokenizer": "t.json", "max_length": 24}


def spec(**inputs):
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": HEADS})


def test_arrays_stand_in_the_order_of_the_inputs_with_their_bounds():
    found = array_specs(
        spec(
            x={"kind": "tensor", "dtype": "int32", "shape": [2, "n"], "lengths": {"n": [2, 7]}, "pad": 3},
            text=TEXT,
            z={"kind": "tensor", "shape": ["n", "m"], "pad": 0},
            i={"kind": "image", "size": [4, 5], "channels": "gray"},
        )
    )
    tokens = {"text_tokens": (1, 24)}
    assert list(found.items()) == [
        ("x", ArraySpec("x", "value", "int32", (2, "n"), 3, None, {"n": (2, 7)})),
        ("input_ids", ArraySpec("text", "ids", "int64", ("text_tokens",), 0, 24, tokens)),
        ("attention_mask", ArraySpec("text", "mask", "int64", ("text_tokens",), 0, 24, tokens)),
        ("z", ArraySpec("z", "value", "float32", ("n", "m"), 0, None, {"n": (2, 7), "m": LENGTHS})),
        ("i", ArraySpec("i", "value", "uint8", (4, 5, 1))),
    ]
    assert [array.free for array in found.values()] == [("n",), ("text_tokens",), ("text_tokens",), ("n", "m"), ()]
    assert len({hash(array) for array in found.values()}) == 5


def test_several_texts_have_arrays_of_their_own_names():
    assert list(array_specs(spec(a=TEXT, b=TEXT))) == [
        "a_input_ids",
        "a_attention_mask",
        "b_input_ids",
        "b_attention_mask",
    ]


def test_an_input_of_a_texts_arrays_name_is_refused():
    with pytest.raises(SpecError, match="'input_ids' names an array of text input 'text': rename the input or head"):
        array_specs(spec(text=TEXT, input_ids={"kind": "tensor", "shape": [2]}))
