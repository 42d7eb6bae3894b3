"""Answers over HTTP, held against the eager network they come from."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from polyhead.export.source import build, from_run, load_weights
from polyhead.models.preprocess import Preprocess
from polyhead.models.zoo import digits

ROWS = 24


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def instance(pixels: np.ndarray) -> dict[str, object]:
    return {"image": {"b64": base64.b64encode(png(pixels)).decode()}}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits.split(0).test.inputs["image"][:ROWS]


@pytest.fixture(scope="module")
def eager(digits_run: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every head by plain PyTorch: no graph, no runtime, no server."""
    source = from_run(digits_run)
    inputs = Preprocess(source.spec.inputs)({"image": torch.from_numpy(images.copy())})
    with torch.inference_mode():
        return {head: output.numpy() for head, output in source.network(**inputs).items()}


def test_every_head_over_http_is_the_eager_networks(server, images, eager):
    response = server.predict("digits", {"instances": [instance(i) for i in images], "options": {"raw": True}})
    assert response.status_code == 200
    predictions = response.json()["predictions"]
    assert len(predictions) == ROWS
    assert set(predictions[0]) == {"digit", "parity", "ink", "embedding"}
    for head, expected in eager.items():
        raw = np.array([row[head]["raw"] for row in predictions])
        np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-4, err_msg=head)
    probabilities = torch.from_numpy(eager["digit"]).softmax(dim=1).numpy()
    for row, probability, ink, vector in zip(predictions, probabilities, eager["ink"], eager["embedding"], strict=True):
        assert row["digit"]["label"] == str(probability.argmax())
        assert row["digit"]["index"] == probability.argmax()
        assert row["digit"]["score"] == pytest.approx(probability.max(), abs=1e-4)
        assert row["ink"] == {"value": pytest.approx(ink[0], abs=1e-3), "unit": "level", "raw": row["ink"]["raw"]}
        np.testing.assert_allclose(row["embedding"]["vector"], vector, atol=1e-4)


def test_one_png_as_the_body_answers_one_row(server, images, eager):
    for index in range(4):
        response = server.http.post(
            "/predictions/digits", content=png(images[index]), headers={"Content-Type": "image/png"}
        )
        assert response.status_code == 200
        answer = response.json()
        assert answer["digit"]["index"] == eager["digit"][index].argmax()
        assert answer["ink"]["value"] == pytest.approx(eager["ink"][index, 0], abs=1e-3)
        assert len(answer["embedding"]["vector"]) == 64


def test_only_the_heads_asked_for_come_back_in_the_order_asked(server, images):
    body = {"instances": [instance(images[0])], "heads": ["parity", "digit"]}
    assert list(server.predict("digits", body).json()["predictions"][0]) == ["parity", "digit"]
    headers = {"Content-Type": "image/png", "x-polyhead-heads": "ink"}
    assert list(server.http.post("/predictions/digits", content=png(images[0]), headers=headers).json()) == ["ink"]


@pytest.mark.parametrize("path", ["/predictions/digits", "/predictions/digits/1.0", "/v1/models/digits:predict"])
def test_every_route_answers_the_same(server, images, path):
    response = server.http.post(path, json={"instances": [instance(images[0])]})
    reference = server.predict("digits", {"instances": [instance(images[0])]})
    assert response.status_code == 200
    assert response.content == reference.content


def test_every_answer_names_model_and_bundle(server, images):
    served = {model["model"]: model["bundle"] for model in server.ready["models"]}
    for body, status in (({"instances": [instance(images[0])]}, 200), ({"instances": []}, 422)):
        response = server.predict("digits", body)
        assert response.status_code == status
        assert response.headers["X-Polyhead-Model"] == "digits/1.0"
        assert response.headers["X-Polyhead-Bundle"] == served["digits/1.0"]
        assert response.headers["Content-Type"] == "application/json"


def test_options_add_top_labels_and_every_score(server, images, eager):
    body = {"instances": [instance(images[0])], "heads": ["digit"], "options": {"top_k": 3, "scores": True}}
    answer = server.predict("digits", body).json()["predictions"][0]["digit"]
    order = np.argsort(-eager["digit"][0], kind="stable")[:3]
    assert [top["index"] for top in answer["top"]] == order.tolist()
    assert set(answer["scores"]) == {str(d) for d in range(10)}
    assert sum(answer["scores"].values()) == pytest.approx(1.0, abs=1e-5)


def test_a_network_of_the_users_own_answers_as_it_does_eagerly(server, wine):
    network = load_weights(build(f"{wine['example'] / 'net.py'}:build"), wine["weights"])
    rows = load_file(wine["samples"])["measurements"][:10]
    with torch.inference_mode():
        expected = {name: value.numpy() for name, value in network(torch.from_numpy(rows)).items()}
    response = server.predict("wine", {"instances": [{"measurements": row.tolist()} for row in rows]})
    assert response.status_code == 200
    for answer, logits, alcohol in zip(
        response.json()["predictions"], expected["cultivar"], expected["alcohol"], strict=True
    ):
        assert answer["cultivar"]["label"] == ("barolo", "grignolino", "barbera")[logits.argmax()]
        assert answer["alcohol"] == {"value": pytest.approx(alcohol, rel=1e-4), "unit": "% vol"}


def test_a_tensor_as_little_endian_bytes_answers_as_json_does(server, wine):
    row = load_file(wine["samples"])["measurements"][0]
    headers = {"Content-Type": "application/octet-stream"}
    binary = server.http.post("/predictions/wine", content=row.astype("<f4").tobytes(), headers=headers)
    assert binary.json() == server.predict("wine", {"instances": [row.tolist()]}).json()["predictions"][0]


def test_a_hundred_rows_in_one_request_keep_their_order(server, images):
    repeated = [images[i % ROWS] for i in range(100)]
    one = server.predict("digits", {"instances": [instance(i) for i in repeated], "heads": ["ink"]}).json()
    values = [row["ink"]["value"] for row in one["predictions"]]
    np.testing.assert_allclose(values[:ROWS], values[ROWS : 2 * ROWS], atol=1e-4)
    assert len(set(np.round(values[:ROWS], 3))) > ROWS // 2


def test_as_many_forward_passes_as_batches_never_one_per_head_or_row(server, images):
    bodies = [png(images[i % ROWS]) for i in range(32)]
    send = lambda body: server.http.post("/predictions/digits", content=body, headers={"Content-Type": "image/png"})  # noqa: E731
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(send, bodies))  # opens the connections
        before = server.counts("digits")
        responses = list(pool.map(send, bodies))
        after = server.counts("digits")
    assert [r.status_code for r in responses] == [200] * 32
    assert all(set(r.json()) == {"digit", "parity", "ink", "embedding"} for r in responses)
    change = {key: after[key] - before[key] for key in after}
    assert change["requests"] == 32
    assert change["rows"] == 32
    # The two `describe` calls themselves run no forward pass and are no batch.
    assert change["forwards"] == change["batches"]
    assert change["batches"] < 16, "the requests did not meet in batches"
