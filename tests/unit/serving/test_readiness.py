"""A server is ready when it answers its golden samples; here the responder itself stands for the server."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from polyhead.serving.errors import GoldenMismatch, LaunchError
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.configuration import Addresses
from polyhead.serving.torchserve.readiness import example, replay_golden

ADDRESSES = Addresses("127.0.0.1", 8080, 8081, 8082, 7070, 7071, 7072)


def _client(found: Any) -> httpx.Client:
    """A client whose requests the bundle's own responder answers."""
    responder = Responder(found.engine(), Settings())

    def answer(request: httpx.Request) -> httpx.Response:
        (response,) = responder.respond([HttpRequest(request.content, request.headers["content-type"])])
        return httpx.Response(response.status, content=response.body)

    return httpx.Client(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize("name", ["mlp", "picture", "lexicon", "reader", "pair", "field"])
def test_a_server_answers_every_golden_sample(name: str, request: pytest.FixtureRequest):
    found = request.getfixturevalue(name)
    golden = found.bundle.golden()
    with _client(found) as client:
        for row in range(golden.rows):
            replay_golden(client, ADDRESSES, found.bundle, golden, found.bundle.manifest.graphs[0], "cpu", row)


@pytest.mark.parametrize("head", ["slots", "who", "words"])
def test_another_answer_names_the_head(lexicon, head: str):
    golden = lexicon.bundle.golden()
    golden.outputs[head] = golden.outputs[head] + np.float32(0.1)
    with (
        _client(lexicon) as client,
        pytest.raises(GoldenMismatch, match=f"head '{head}' does not reproduce golden sample 1 over HTTP: error 0.1"),
    ):
        replay_golden(client, ADDRESSES, lexicon.bundle, golden, lexicon.bundle.manifest.graphs[0], "cpu", 1)


def test_a_refusal_is_told(lexicon):
    golden = lexicon.bundle.golden()
    golden.texts["text"][0] = "on " * 30
    with _client(lexicon) as client, pytest.raises(LaunchError, match=r"golden sample 0 with 422: .*has 32 tokens"):
        replay_golden(client, ADDRESSES, lexicon.bundle, golden, lexicon.bundle.manifest.graphs[0], "cpu", 0)


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
