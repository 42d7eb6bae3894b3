"""Classes enrolled in a bundle: a new bundle with the same graphs, and one more answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from torch import nn

from polyhead.export.assemble import export
from polyhead.export.enrol import enrol
from polyhead.export.errors import ExportError
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import InvalidInstance
from polyhead.serving.protocol import json
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from tests.unit.serving.wordpiece import VOCABULARY, tokenizer_json

SPEC = ModelSpec.parse(
    {
        "name": "faces",
        "version": "1",
        "inputs": {"text": {"kind": "text", "tokenizer": "t.json", "max_length": 24}},
        "heads": {
            "who": {"kind": "oneshot", "dim": 2, "normalize": False, "max_distance": 0.1},
            "size": {"kind": "regression"},
        },
    }
)


class Counts(nn.Module):
    """How often `hello` and `there` stand in a text: vectors that can be told beforehand."""

    def forward(self, input_ids, attention_mask):
        hello, there = (
            ((input_ids == VOCABULARY.index(word)) * attention_mask).sum(1).to(torch.float32)
            for word in ("hello", "there")
        )
        return {"who": torch.stack([hello, there], dim=1), "size": hello}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that knows nobody."""
    tokenizers = {"text": Tokenizer(tokenizer_json(), SPEC.inputs["text"])}
    made = Source(Counts(), SPEC, random_samples(SPEC, tokenizers=tokenizers), tokenizers=tokenizers)
    return export(made, tmp_path_factory.mktemp("bundles") / "plain", ["torchscript"])[0]


def _query(*texts: str) -> Query:
    body = orjson.dumps({"instances": list(texts)})
    return json.decode(HttpRequest(body, "application/json"), SPEC, Settings())


def _who(bundle: Bundle, text: str) -> str | None:
    responder = Responder(Engine.load(bundle, "torchscript", "cpu"), Settings())
    (response,) = responder.respond([HttpRequest(text.encode(), "text/plain", {"x-polyhead-heads": "who"})])
    label: str | None = orjson.loads(response.body)["who"]["label"]
    return label


def test_a_class_of_one_example_is_found_and_no_graph_has_changed(plain: Bundle, tmp_path: Path):
    made = enrol(plain, "who", {"ana": [_query("hello")], "bob": [_query("there my friend")]}, tmp_path / "new")
    assert made.prototypes()["who"].labels == ("ana", "bob")
    assert [_who(made, text) for text in ("Hello!", "there", "hello there")] == ["ana", "bob", None]
    assert _who(plain, "hello") is None
    same = set(plain.manifest.files)
    assert set(made.manifest.files) == same | {"prototypes/who.safetensors"}
    assert all(made.manifest.files[name] == plain.manifest.files[name] for name in same)
    assert made.manifest.spec == plain.manifest.spec
    assert made.digest != plain.digest
    assert Bundle.open(tmp_path / "new").digest == made.digest


def test_more_examples_are_the_mean_over_all_of_them(plain: Bundle, tmp_path: Path):
    once = enrol(plain, "who", {"ana": [_query("hello"), _query("hello hello hello", "")]}, tmp_path / "once")
    twice = enrol(once, "who", {"ana": [_query("hello hello " * 4)]}, tmp_path / "twice")
    assert once.prototypes()["who"].vectors.tolist() == [[pytest.approx(4 / 3), 0]]
    assert twice.prototypes()["who"].vectors.tolist() == [[3.0, 0.0]]
    assert twice.prototypes()["who"].examples.tolist() == [4]


def test_a_bundle_may_be_replaced_and_get_a_new_version(plain: Bundle, tmp_path: Path):
    first = enrol(plain, "who", {"ana": [_query("hello")]}, tmp_path / "b", version="2.0")
    assert (first.title, plain.title) == ("faces/2.0", "faces/1")
    with pytest.raises(ExportError, match="exists already"):
        enrol(first, "who", {"bob": [_query("there")]}, tmp_path / "b")
    second = enrol(first, "who", {"bob": [_query("there")]}, tmp_path / "b", force=True)
    assert second.prototypes()["who"].labels == ("ana", "bob")
    assert second.title == "faces/2.0"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("head", "examples", "message"),
    [
        ("size", {"ana": ["hello"]}, r"head 'size' of faces/1 enrols no classes \(oneshot heads: who\)"),
        ("nose", {"ana": ["hello"]}, r"head 'nose' of faces/1 enrols no classes \(oneshot heads: who\)"),
        ("who", {"ana": []}, r"class 'ana': examples \[0, 2\], wanted \[1 or more, 2\]"),
        ("who", {"": ["hello"]}, "class '': a label is text without control characters"),
        ("who", {"a\nb": ["hello"]}, r"class 'a\\nb': a label is text without control characters"),
        ("who", {"a\ud800": ["hello"]}, "a label is text without control characters"),
    ],
)
def test_what_cannot_be_enrolled_is_explained(plain: Bundle, tmp_path: Path, head, examples, message):
    queries = {label: [_query(text) for text in texts] for label, texts in examples.items()}
    with pytest.raises(ExportError, match=message):
        enrol(plain, head, queries, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_an_example_that_is_too_long_is_refused(plain: Bundle, tmp_path: Path):
    with pytest.raises(InvalidInstance, match="the text has 32 tokens"):
        enrol(plain, "who", {"ana": [_query("on " * 30)]}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_many_examples_are_run_in_several_passes(plain: Bundle, tmp_path: Path):
    texts = ["hello " * (i % 5) for i in range(300)]
    made = enrol(plain, "who", {"ana": [_query(*texts)]}, tmp_path / "new")
    np.testing.assert_allclose(made.prototypes()["who"].vectors, [[2, 0]])
    assert made.prototypes()["who"].examples.tolist() == [300]
