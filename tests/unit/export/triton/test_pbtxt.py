"""The text form of protocol buffers, read back by the library of Google's own."""

from __future__ import annotations

from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from polyhead.export.triton.pbtxt import Word, pbtxt


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=10))
def test_any_text_comes_back_as_it_was(value, key):
    text = pbtxt([("parameters", [("key", key), ("value", [("string_value", value)])])])
    parsed = text_format.Parse(text.encode("utf-8"), ModelConfig())
    assert {k: v.string_value for k, v in parsed.parameters.items()} == {key: value}


def test_json_stays_legible():
    assert pbtxt([("name", '{"unit": "°C", "it\'s": 1}')]) == 'name: \'{"unit": "°C", "it\\\'s": 1}\'\n'


def test_numbers_words_lists_and_messages():
    fields = [
        ("max_batch_size", 8),
        ("input", [("name", "x"), ("data_type", Word("TYPE_BOOL")), ("dims", (-1, 3)), ("optional", True)]),
        ("input", [("name", "s"), ("dims", (1,)), ("reshape", [("shape", ())]), ("optional", False)]),
    ]
    text = pbtxt(fields)
    assert text == (
        'max_batch_size: 8\ninput {\n  name: "x"\n  data_type: TYPE_BOOL\n  dims: [-1, 3]\n  optional: true\n}\n'
        'input {\n  name: "s"\n  dims: [1]\n  reshape {\n    shape: []\n  }\n  optional: false\n}\n'
    )
    parsed = text_format.Parse(text, ModelConfig())
    assert [list(door.dims) for door in parsed.input] == [[-1, 3], [1]]
    assert [door.HasField("reshape") for door in parsed.input] == [False, True]
