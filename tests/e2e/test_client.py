"""The client beside a real server: every way of sending the same rows gets the same answers."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from PIL import Image

from polyhead.serving.client import AsyncClient, Classification, Client, Embedding, Refused, Regression

IMAGES = np.random.default_rng(1).integers(0, 256, (70, 8, 8, 1), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def require_alike(found, expected) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert (one["digit"].label, one["digit"].index) == (other["digit"].label, other["digit"].index)
        assert one["digit"].score == pytest.approx(other["digit"].score, abs=1e-5)
        assert one["ink"].value == pytest.approx(other["ink"].value, abs=1e-4)
        np.testing.assert_allclose(one["embedding"].vector, other["embedding"].vector, atol=1e-4)


def test_arrays_files_and_lists_get_the_same_answers_however_they_are_cut(server):
    with Client(server.url) as client, Client(server.url, chunk_rows=9) as small:
        whole = client.predict("digits", IMAGES)
        first = whole[0]
        assert isinstance(first["digit"], Classification)
        assert isinstance(first["embedding"], Embedding)
        assert isinstance(first["ink"], Regression)
        assert first["ink"].unit == "level"
        assert first["embedding"].vector.dtype == np.float32
        require_alike(small.predict("digits", IMAGES), whole)
        require_alike(client.predict("digits/1.0", [image.tolist() for image in IMAGES]), whole)
        require_alike(client.predict("digits", [png(image) for image in IMAGES]), whole)
        require_alike([client.predict_file("digits", png(IMAGES[0]), "image/png")], whole[:1])
        plain = client.predict_json("digits", IMAGES[:3], ["digit"], {"top_k": 2})
    assert [list(row) for row in plain] == [["digit"]] * 3
    assert [row["digit"]["label"] for row in plain] == [row["digit"].label for row in whole[:3]]
    assert len(plain[0]["digit"]["top"]) == 2


def test_the_awaited_client_answers_alike(server):
    async def ask():
        async with AsyncClient(server.url, chunk_rows=8) as client:
            return await asyncio.gather(*(client.predict("digits", IMAGES) for _ in range(3)))

    with Client(server.url) as client:
        expected = client.predict("digits", IMAGES)
    for found in asyncio.run(ask()):
        require_alike(found, expected)


def test_options_are_kept_where_rows_go_in_binary(server):
    with Client(server.url) as client:
        row = client.predict("digits", IMAGES[:20], ["digit"], {"scores": True, "top_k": 3})[19]["digit"]
    assert sum(row.scores.values()) == pytest.approx(1, abs=1e-4)
    assert row.top[0]["label"] == row.label


def test_a_refusal_says_where_over_the_whole_job_and_under_which_id(server):
    rows = [image.tolist() for image in IMAGES[:10]]
    rows[7] = [[1, 2]]
    with Client(server.url, chunk_rows=4) as client, pytest.raises(Refused) as found:
        client.predict("digits", rows, request_id="job-1")
    assert found.value.loc[:2] == ("instances", 7)
    assert found.value.request_id == "job-1-4"
    assert found.value.type == "invalid_instance"
