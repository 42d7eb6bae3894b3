"""Enrolled classes: their means, their distances, their file, and their way through a bundle."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import safetensors.numpy

from polyhead.models.textarray import texts_to_array
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError
from polyhead.serving.golden import Array
from polyhead.serving.prototypes import Prototypes, prototypes_file
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

Forge = Callable[[Path, str, bytes], None]


def _vectors(*rows: list[float]) -> Array:
    return np.array(rows, dtype=np.float32)


# --- enrolling ------------------------------------------------------------------------------------------------------


def test_a_prototype_is_the_mean_of_its_examples():
    one = Prototypes.empty(2).enrol("ana", _vectors([1, 0], [0, 1], [2, 2]))
    assert one.labels == ("ana",)
    np.testing.assert_allclose(one.vectors, [[1, 1]])
    np.testing.assert_array_equal(one.examples, [3])
    assert (one.vectors.dtype, one.examples.dtype) == (np.float32, np.int64)


def test_classes_keep_the_order_they_were_enrolled_in():
    found = Prototypes.empty(1).enrol("z", _vectors([1])).enrol("a", _vectors([2])).enrol("m", _vectors([3], [5]))
    assert found.labels == ("z", "a", "m")
    np.testing.assert_array_equal(found.vectors, [[1], [2], [4]])


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_more_examples_of_a_class_are_the_mean_over_all(cut: int):
    examples = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    other = _vectors([9, 9, 9])
    whole = Prototypes.empty(3).enrol("ana", examples).enrol("bob", other)
    parts = Prototypes.empty(3).enrol("ana", examples[:cut]).enrol("bob", other).enrol("ana", examples[cut:])
    assert parts.labels == whole.labels == ("ana", "bob")
    np.testing.assert_allclose(parts.vectors, whole.vectors, rtol=1e-6)
    np.testing.assert_array_equal(parts.examples, [5, 1])


def test_enrolling_leaves_what_was_there():
    before = Prototypes.empty(1).enrol("ana", _vectors([1]))
    before.enrol("ana", _vectors([3]))
    before.enrol("bob", _vectors([3]))
    assert before.labels == ("ana",)
    np.testing.assert_array_equal(before.vectors, [[1]])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((0, 2), np.float32), r"examples \[0, 2\], wanted \[1 or more, 2\]"),
        (np.zeros((1, 3), np.float32), r"examples \[1, 3\], wanted \[1 or more, 2\]"),
        (np.zeros(2, np.float32), r"examples \[2\], wanted \[1 or more, 2\]"),
        (_vectors([1, np.nan]), "not finite"),
        (_vectors([np.inf, 1], [0, 0]), "not finite"),
    ],
)
def test_examples_that_do_not_fit_are_refused(vectors: Array, message: str):
    with pytest.raises(ValueError, match=message):
        Prototypes.empty(2).enrol("ana", vectors)


# --- distances ------------------------------------------------------------------------------------------------------


def test_distances_are_euclidean():
    found = Prototypes(("a", "b"), _vectors([0, 0], [3, 4]), np.array([1, 1]))
    np.testing.assert_allclose(found.distances(_vectors([3, 4], [0, 4])), [[5, 0], [4, 3]])


def test_distances_near_a_prototype_are_exact():
    """The expanded square would be off by more than the distance itself."""
    vector = np.full(128, 100, np.float32)
    near = vector.copy()
    near[0] += np.float32(1e-3)
    found = Prototypes(("a",), vector[None], np.array([1]))
    assert found.distances(near[None])[0, 0] == pytest.approx(float(near[0] - vector[0]), rel=1e-6)


def test_many_classes_take_no_more_memory_than_their_distances():
    generator = np.random.default_rng(0)
    classes, rows = (generator.standard_normal((n, 64)).astype(np.float32) for n in (2000, 500))
    found = Prototypes(tuple(map(str, range(2000))), classes, np.ones(2000, np.int64))
    tracemalloc.start()
    try:
        distances = found.distances(rows)
        assert tracemalloc.get_traced_memory()[1] < 80_000_000  # all differences at once would be 256 MB
    finally:
        tracemalloc.stop()
    for row, enrolled in ((0, 0), (499, 1999), (250, 3)):
        assert distances[row, enrolled] == pytest.approx(np.linalg.norm(rows[row] - classes[enrolled]), rel=1e-5)


# --- file -----------------------------------------------------------------------------------------------------------

SOUND: dict[str, Array] = {
    "labels": texts_to_array(["ana", "Zoë 👩‍👩‍👧"]),
    "vectors": _vectors([1, 2], [3, 4]),
    "examples": np.array([1, 5], dtype=np.int64),
}


def test_prototypes_survive_their_file():
    made = Prototypes.empty(2).enrol("Zoë 👩‍👩‍👧", _vectors([1, 2], [2, 3])).enrol("bob", _vectors([5, 6]))
    found = Prototypes.load(made.dump(), 2)
    assert found.labels == made.labels
    np.testing.assert_array_equal(found.vectors, made.vectors)
    np.testing.assert_array_equal(found.examples, made.examples)
    assert Prototypes.load(Prototypes.empty(3).dump(), 3).labels == ()
    assert Prototypes.load(safetensors.numpy.save(SOUND), 2).labels == ("ana", "Zoë 👩‍👩‍👧")


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"labels": None}, "not prototypes: 'labels'"),
    "no vectors": ({"vectors": None}, "not prototypes: 'vectors'"),
    "no examples": ({"examples": None}, "not prototypes: 'examples'"),
    "a label twice": ({"labels": texts_to_array(["a", "a"])}, "2 labels with vectors"),
    "one label": ({"labels": texts_to_array(["a"])}, "1 labels with vectors"),
    "labels of another kind": ({"labels": np.frombuffer(b"[1, 2]", np.uint8)}, "not a list of texts"),
    "labels too deep": ({"labels": np.frombuffer(b"[" * 100_000, np.uint8)}, "not prototypes: maximum recursion"),
    "labels of no JSON": ({"labels": np.frombuffer(b"[", np.uint8)}, "Expecting value"),
    "labels of no UTF-8": ({"labels": np.frombuffer(b'["\xff", "b"]', np.uint8)}, "can't decode"),
    "labels of numbers": ({"labels": np.zeros(2, np.float32)}, "texts are uint8"),
    "another width": (
        {"vectors": np.zeros((2, 3), np.float32)},
        r"2 labels with vectors \[2, 3\], wanted \[labels, 2\]",
    ),
    "another type": ({"vectors": np.zeros((2, 2), np.float64)}, "2 labels with vectors"),
    "no number": ({"vectors": _vectors([1, np.nan], [1, 2])}, "a vector is not finite"),
    "one count": ({"examples": np.array([1])}, "2 labels with vectors"),
    "a count of none": ({"examples": np.array([1, 0])}, "whole numbers of 1 or more"),
    "counts that are not whole": ({"examples": np.array([1.0, 2.0])}, "whole numbers of 1 or more"),
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_a_damaged_file_is_refused(name: str):
    changes, message = DAMAGED[name]
    content = {key: array for key, array in (SOUND | changes).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        Prototypes.load(safetensors.numpy.save(content), 2)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 64])
def test_other_bytes_are_no_prototypes(data: bytes):
    with pytest.raises(ValueError, match="not prototypes"):
        Prototypes.load(data, 2)


# --- in a bundle ----------------------------------------------------------------------------------------------------


def _who(responder: Responder, *texts: str, **options: Any) -> list[dict[str, Any]]:
    body = {"instances": list(texts), "heads": ["who"], "options": options}
    (response,) = responder.respond([HttpRequest(orjson.dumps(body), "application/json")])
    assert response.status == 200, response.body
    return [row["who"] for row in orjson.loads(response.body)["predictions"]]


def test_a_bundle_brings_its_classes_along(lexicon):
    enrolled = Bundle.open(lexicon.bundle.folder).prototypes()
    assert list(enrolled) == ["who"]
    assert enrolled["who"].labels == ("ana", "bob")
    np.testing.assert_allclose(enrolled["who"].vectors, [[1 / 3, 0], [0, 1 / 3]])


def test_a_bundle_without_classes_knows_nobody(reader):
    enrolled = reader.bundle.prototypes()
    assert enrolled["who"].labels == ()
    assert enrolled["who"].vectors.shape == (0, 4)
    (answer,) = _who(Responder(reader.engine(), Settings()), "hello", top_k=3)
    assert answer == {"label": None, "score": None, "distance": None, "top": []}


def test_the_nearest_class_by_hand(lexicon):
    """`hello there` is (1/4, 1/4): from (1/3, 0) the root of 1/144 + 1/16, the same from (0, 1/3)."""
    hello, there, both, far = _who(
        Responder(lexicon.engine(), Settings()), "hello", "THERE", "hello there hello", "turn on the light", scores=True
    )
    assert (hello["label"], there["label"]) == ("ana", "bob")
    assert hello["distance"] == pytest.approx(0, abs=1e-6)
    # scale 4: the other prototype is the root of 2/9 away.
    assert hello["score"] == pytest.approx(1 / (1 + np.exp(-4 * 2 / 9)), rel=1e-5)
    assert both["label"] == "ana"
    assert both["distance"] == pytest.approx(np.hypot(2 / 5 - 1 / 3, 1 / 5), rel=1e-5)
    assert far["label"] is None
    assert far["distance"] == pytest.approx(1 / 3, rel=1e-5)
    assert list(far["scores"].values()) == pytest.approx([0.5, 0.5])


def test_prototypes_of_another_head_are_refused(lexicon, copy_of, forge: Forge):
    folder = copy_of(lexicon)
    forge(folder, prototypes_file("who"), Prototypes.empty(3).enrol("ana", _vectors([1, 2, 3])).dump())
    with pytest.raises(BundleError) as caught:
        Responder(Engine.load(Bundle.open(folder), "onnxruntime", "cpu"), Settings())
    assert str(caught.value) == (
        f"{folder}: prototypes/who.safetensors does not fit the spec (1 labels with vectors [1, 3], wanted [labels, 2])"
    )
