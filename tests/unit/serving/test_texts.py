"""Texts of a query become tokens; their words are looked for only where a head labels them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving import texts
from polyhead.serving.errors import InvalidInstance, RuntimeUnavailable
from polyhead.serving.request import Query
from polyhead.serving.texts import Texts
from tests.unit.serving.wordpiece import VOCABULARY, tokenizer_json


def _texts(**changes: Any) -> Texts:
    inputs = {
        "a": {"kind": "text", "tokenizer": "t.json", "max_length": 8, **changes},
        "b": {"kind": "text", "tokenizer": "t.json", "max_length": 6},
        "x": {"kind": "tensor", "shape": [1]},
    }
    heads = {
        "slots": {"kind": "tokens", "labels": ["O", "B-x"], "input": "b"},
        "size": {"kind": "regression"},
    }
    spec = ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads})
    found = {n: Tokenizer(tokenizer_json(), value) for n, value in spec.inputs.items() if isinstance(value, TextInput)}
    return Texts(spec, found)


def _query(a: Sequence[str], b: Sequence[str], *heads: str, single: bool = False) -> Query:
    return Query(len(a), {"a": list(a), "b": list(b), "x": [0] * len(a)}, heads, single=single)


def test_each_text_becomes_its_tokens_and_anything_else_stays():
    query = _query(["turn on", ""], ["off", "the light"], "size")
    found = _texts().encode(query)
    ids = {name: [encoding.ids.tolist() for encoding in found.inputs[name]] for name in ("a", "b")}
    wanted = {"a": ["[CLS] turn on [SEP]", "[CLS] [SEP]"], "b": ["[CLS] off [SEP]", "[CLS] the light [SEP]"]}
    assert ids == {n: [[VOCABULARY.index(t) for t in row.split()] for row in rows] for n, rows in wanted.items()}
    assert [encoding.text for encoding in found.inputs["b"]] == ["off", "the light"]
    assert found.inputs["x"] is query.inputs["x"]
    assert (found.rows, found.heads, found.options, found.single) == (2, ("size",), query.options, False)


@pytest.mark.parametrize(("heads", "words"), [((), 0), (("size",), 0), (("slots",), 2), (("size", "slots"), 2)])
def test_words_are_found_where_a_wanted_head_labels_them(heads: tuple[str, ...], words: int):
    found = _texts().encode(_query(["turn on"], ["the light"], *heads))
    assert len(found.inputs["a"][0].words) == 0  # no head labels this text
    assert len(found.inputs["b"][0].words) == words


@pytest.mark.parametrize(("single", "place"), [(False, ("instances", 1, "b")), (True, ())])
@pytest.mark.parametrize("heads", [("size",), ("slots",)])
def test_a_text_that_is_too_long_is_named(single: bool, place: tuple[Any, ...], heads: tuple[str, ...]):
    query = _query(["on", "on"], ["on on on on", "on on on on on"], *heads, single=single)
    with pytest.raises(InvalidInstance) as caught:
        _texts().encode(query)
    assert caught.value.loc == place
    assert caught.value.message == (
        "input 'b': the text has 7 tokens, the model takes 6: shorten it, or set truncate: true in the spec"
    )


def test_a_text_beyond_all_measure_is_not_looked_at():
    limit = texts.MIN_CHARACTERS
    for count, kind in ((limit, "tokens"), (limit + 1, "characters")):
        with pytest.raises(InvalidInstance, match=f"has {count} {kind}|the text has {count + 2} tokens"):
            _texts().encode(_query([","], ["," * count]))
    (encoding,) = _texts().encode(_query([" " * limit], ["on"])).inputs["a"]
    assert len(encoding.ids) == 2


def test_a_long_text_is_cut_where_the_spec_says_so():
    kept = "on off the in to set"
    found = _texts(truncate=True).encode(
        _query([kept, f"{kept} light", kept + " light" * 1_000_000], ["on"] * 3, "size")
    )
    rows = [encoding.ids.tolist() for encoding in found.inputs["a"]]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 8


def test_a_library_that_is_missing_is_named(lexicon, mlp, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(RuntimeUnavailable) as caught:
        Texts.of(lexicon.bundle)
    assert str(caught.value) == ("input 'text' is text, and tokenizers is not installed: pip install 'polyhead[text]'")
    assert Texts.of(mlp.bundle).tokenizers == {}  # a model without texts needs none


def test_a_model_without_texts_loads_no_tokenizers(mlp, tmp_path):
    code = (
        "import sys; from pathlib import Path; from polyhead.serving.bundle import Bundle; "
        "from polyhead.serving.texts import Texts; "
        f"Texts.of(Bundle.open(Path({str(mlp.bundle.folder)!r}))); print('tokenizers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "False"
