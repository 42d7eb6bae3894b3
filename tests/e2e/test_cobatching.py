"""Requests that want different heads, in one batch of a real server with heads apart: each gets its own answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyhead.serving.bundle import Bundle
from tests.alike import assert_alike
from tests.command import ROOT
from tests.e2e.together import Answer, clients
from tests.server import Running, serving

WANTED = [["digit"], ["embedding", "digit"], ["ink"], None, ["parity", "ink"], ["embedding"], ["digit", "parity"]]


@pytest.fixture(scope="module")
def running(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    config = tmp_path_factory.mktemp("config") / "config.properties"
    text = (ROOT / "config.properties").read_text()
    assert "polyhead_apart=auto\n" in text
    config.write_text(text.replace("polyhead_apart=auto\n", "polyhead_apart=embedding,ink\n"))
    with serving([digits_bundle], "--config", str(config), "--max-batch-delay", "200") as made:
        yield made


def bodies(bundle: Bundle) -> list[tuple[bytes, dict[str, str]]]:
    """One to three golden pictures each."""
    images = bundle.golden().inputs["image"][..., 0].tolist()
    requests = []
    for index, heads in enumerate(WANTED):
        instances = [{"image": image} for image in images[index : index + 1 + index % 3]]
        content = {"instances": instances} if heads is None else {"instances": instances, "heads": heads}
        requests.append((json.dumps(content).encode(), {"Content-Type": "application/json"}))
    return requests


def predictions(answer: Answer) -> list[dict[str, object]]:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["predictions"]


def test_each_request_gets_the_answers_that_it_gets_alone(running: Running, digits_bundle: Path):
    bundle = Bundle.open(digits_bundle)
    requests = bodies(bundle)
    with clients(running, "digits", len(requests)) as sent:
        before = running.counts("digits")["forwards"]
        alone = [predictions(answer) for request in requests for answer in sent.send([request])]
        assert running.counts("digits")["forwards"] == before + len(requests)
        together = [predictions(answer) for answer in sent.in_one_batch(requests)]
    for heads, one, other in zip(WANTED, together, alone, strict=True):
        assert [list(row) for row in one] == [heads or list(bundle.spec.heads)] * len(one)
        assert_alike(one, other)
