"""A server is ready when it answers its golden samples; here the responder itself stands for the server."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from polyhead.serving.errors import GoldenMismatch, LaunchError, Overloaded
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.readiness import GoldenSamples, example

URL = "http://127.0.0.1:8080"


def _client(found: Any, asked: list[str] | None = None, bundle: str | None = None) -> httpx.Client:
    """A client whose requests the bundle's own responder answers, saying that it is a certain bundle."""
    responder = Responder(found.engine(), Settings())

    def answer(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(str(request.url))
        (response,) = responder.respond([HttpRequest(request.content, request.headers["content-type"])])
        name = found.bundle.digest[:12] if bundle is None else bundle
        return httpx.Response(response.status, content=response.body, headers={"X-Polyhead-Bundle": name})

    return httpx.Client(transport=httpx.MockTransport(answer))


def _samples(found: Any) -> GoldenSamples:
    return GoldenSamples(found.bundle, found.bundle.manifest.graphs[0].id, "cpu")


@pytest.mark.parametrize("name", ["mlp", "picture", "lexicon", "reader", "pair", "field"])
def test_a_server_answers_every_golden_sample(name: str, request: pytest.FixtureRequest):
    found = request.getfixturevalue(name)
    samples, asked = _samples(found), list[str]()
    with _client(found, asked) as client:
        for row in range(samples.rows):
            samples.replay(client, URL, row)
        samples.replay(client, URL, 0, versioned=False)
    title = found.bundle.title
    assert asked == [f"{URL}/predictions/{title}"] * samples.rows + [f"{URL}/predictions/{title.partition('/')[0]}"]


@pytest.mark.parametrize("head", ["slots", "who", "words"])
def test_another_answer_names_the_head(lexicon, head: str):
    samples = _samples(lexicon)
    samples.golden.outputs[head] = samples.golden.outputs[head] + np.float32(0.1)
    with (
        _client(lexicon) as client,
        pytest.raises(GoldenMismatch, match=f"head '{head}' does not reproduce golden sample 1 over HTTP: error 0.1"),
    ):
        samples.replay(client, URL, 1)


def test_another_bundle_is_named(mlp):
    with _client(mlp, bundle="0123456789ab") as client, pytest.raises(GoldenMismatch, match="bundle 0123456789ab ans"):
        _samples(mlp).replay(client, URL, 0)


def test_a_refusal_is_told(lexicon):
    samples = _samples(lexicon)
    samples.golden.texts["text"][0] = "on " * 30
    with _client(lexicon) as client, pytest.raises(LaunchError, match=r"golden sample 0 with 422: .*has 32 tokens"):
        samples.replay(client, URL, 0)


@pytest.mark.parametrize(("status", "kind"), [(503, Overloaded), (500, LaunchError), (404, LaunchError)])
def test_a_full_queue_is_told_from_a_failure(mlp, status: int, kind: type[Exception]):
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text="said"))
    with httpx.Client(transport=transport) as client, pytest.raises(LaunchError, match=f"with {status}: said") as told:
        _samples(mlp).replay(client, URL, 0)
    assert type(told.value) is kind


def test_no_answer_is_told(mlp):
    with httpx.Client(trust_env=False) as client, pytest.raises(LaunchError, match="gives no answer to its golden sam"):
        _samples(mlp).replay(client, "http://127.0.0.1:9", 0)


def test_an_example_is_what_a_client_would_send(lexicon, pair):
    golden = lexicon.bundle.golden()
    assert orjson.loads(example(lexicon.bundle, golden, 1, heads=["who"])) == {
        "instances": [{"text": "Café"}],
        "heads": ["who"],
    }
    (instance,) = orjson.loads(example(pair.bundle, pair.bundle.golden(), 2))["instances"]
    assert list(instance) == ["question", "weight", "my-passage"]
    assert instance["question"] == pair.samples["question"][2]
    assert instance["weight"] == pytest.approx(pair.samples["weight"][2].tolist())
