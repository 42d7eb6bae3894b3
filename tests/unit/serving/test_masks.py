"""Masks: run lengths and PNGs hold exactly the labels of the pixels."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyhead.serving import masks
from polyhead.serving.golden import Array
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

FUZZ = settings(max_examples=150, deadline=None, database=None)


def _from_runs(runs: Any, size: tuple[int, ...]) -> Array:
    """As a client would read them."""
    labels, lengths = np.asarray(runs).T
    return np.repeat(labels, lengths).reshape(size)


def _from_png(text: str) -> Array:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


@FUZZ
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    labels=st.sampled_from([1, 2, 3, 256, 257, 65536]),
    seed=st.integers(0, 1000),
)
def test_any_mask_is_read_back(size: tuple[int, int], labels: int, seed: int):
    mask = np.random.default_rng(seed).integers(0, labels, size)
    runs = masks.runs(mask)
    assert runs.dtype == np.int64
    assert runs[:, 1].sum() == mask.size
    assert (runs[:, 1] >= 1).all()
    assert (runs[1:, 0] != runs[:-1, 0]).all()  # as few runs as there can be
    np.testing.assert_array_equal(_from_runs(runs, size), mask)
    np.testing.assert_array_equal(_from_png(masks.png(mask)), mask)


def test_a_mask_that_is_a_view_is_read_back():
    wide = np.arange(24).reshape(4, 6) % 5
    for mask in (wide[:, ::2], wide.T, wide[1:3, 1:4]):
        np.testing.assert_array_equal(_from_runs(masks.runs(mask), mask.shape), mask)
        np.testing.assert_array_equal(_from_png(masks.png(mask)), mask)


@pytest.mark.parametrize(("label", "mode"), [(0, "L"), (255, "L"), (256, "I;16")])
def test_a_png_has_as_many_bits_as_its_labels_need(label: int, mode: str):
    image = Image.open(io.BytesIO(base64.b64decode(masks.png(np.full((2, 3), label)))))
    assert (image.mode, image.size) == (mode, (3, 2))


# --- over the wire --------------------------------------------------------------------------------------------------

HEIGHT, WIDTH = 6, 10


@pytest.fixture(scope="module")
def of_field(field) -> Responder:
    return Responder(field.engine(), Settings())


def _ground(responder: Responder, pixels: Array, **options: Any) -> list[dict[str, Any]]:
    body = {"instances": pixels.tolist(), "heads": ["ground"], "options": options}
    (response,) = responder.respond([HttpRequest(orjson.dumps(body), "application/json")])
    assert response.status == 200, response.body
    return [row["ground"] for row in orjson.loads(response.body)["predictions"]]


@pytest.fixture(scope="module")
def pictures(field) -> Array:
    return np.asarray(field.samples["image"])[:5]


def test_raw_is_the_networks_own(field, of_field: Responder, pictures: Array):
    with torch.inference_mode():
        eager = field.network(torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2) / 255)["ground"].numpy()
    raw = np.array([answer["raw"] for answer in _ground(of_field, pictures, raw=True)])
    assert raw.shape == (5, 3, HEIGHT, WIDTH)
    np.testing.assert_allclose(raw, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask", ["runs", "png"])
def test_a_mask_is_the_largest_logit_of_each_pixel(of_field: Responder, pictures: Array, mask: str):
    for answer in _ground(of_field, pictures, raw=True, mask=mask):
        expected = np.argmax(answer["raw"], axis=0)
        assert answer["size"] == [HEIGHT, WIDTH]
        assert ("runs" in answer, "png" in answer) == (mask == "runs", mask == "png")
        got = _from_png(answer["png"]) if mask == "png" else _from_runs(answer["runs"], (HEIGHT, WIDTH))
        np.testing.assert_array_equal(got, expected)


def test_labels_and_areas_are_those_of_the_pixels(field, of_field: Responder, pictures: Array):
    names = field.bundle.spec.heads["ground"].labels
    for answer in _ground(of_field, pictures):
        pixels = _from_runs(answer["runs"], (HEIGHT, WIDTH))
        assert answer["labels"] == [names[index] for index in np.unique(pixels)]
        assert answer["areas"] == pytest.approx([np.mean(pixels == index) for index in np.unique(pixels)])
        assert sum(answer["areas"]) == pytest.approx(1)


def test_pictures_in_several_passes_keep_their_order(field, of_field: Responder, pictures: Array):
    cut = Responder(field.engine(), Settings(max_rows_per_forward=2))
    assert _ground(cut, pictures) == _ground(of_field, pictures)
    assert cut.engine.forwards == 3
