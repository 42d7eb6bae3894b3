"""Readiness, by a server whose answers are a responder's own, late, refused, or another model's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import orjson
import pytest

from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.served import Served
from polyhead.serving.settings import Settings
from polyhead.serving.side.exchange import Asked, Reply, Unavailable
from polyhead.serving.side.prober import PATIENCE, Prober
from polyhead.serving.side.server import SideServer

INTERVAL = 0.3


class Backend:
    """What stands for TorchServe: it answers as it is told to."""

    def __init__(self, example) -> None:
        self.bundle = example.bundle
        self.harm: Callable[[Reply], Reply] = lambda reply: reply
        self.delay = 0.0
        self.asked = 0
        self._responder = Responder(example.engine(), Settings())

    def __call__(self, asked: Asked) -> Reply:
        self.asked += 1
        time.sleep(self.delay)
        (response,) = self._responder.respond([HttpRequest(asked.body, asked.headers["content-type"])])
        headers = {"X-Polyhead-Bundle": self.bundle.digest[:12]}
        return self.harm(Reply(response.status, bytes(response.body), headers=headers))


def served_of(example) -> Served:
    graph = example.bundle.manifest.graphs[0].id
    return Served(example.bundle, graph, "onnxruntime", "cpu", "it is there", 1, 1)


@pytest.fixture
def watched(mlp) -> Iterator[tuple[Backend, Prober]]:
    backend = Backend(mlp)
    prober = Prober(INTERVAL)
    with SideServer(0, backend, most_bytes=1 << 20) as server:
        assert not prober.health().ready, "nothing is ready before it has started"
        prober.watch(served_of(mlp), server.url)
        prober.started()
        yield backend, prober
        prober.close()


def becomes(prober: Prober, ready: bool, within: float) -> float | None:
    """After how many seconds readiness is so; None where it does not become so in time."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        if prober.health().ready is ready:
            return time.monotonic() - began
        time.sleep(0.01)
    return None


def wrong(reply: Reply) -> Reply:
    content = orjson.loads(reply.body)
    content["predictions"][0]["level"]["raw"] = [[1e6]]
    return replace(reply, body=orjson.dumps(content))


def refused(_: Reply) -> Reply:
    raise Unavailable("the queue is full")


def test_a_model_that_answers_right_is_ready(watched):
    backend, prober = watched
    assert becomes(prober, False, 6 * INTERVAL) is None
    assert backend.asked >= 3
    (model,) = prober.health().models
    assert (model.name, model.version, model.fault, model.failures) == ("mlp", "1.0", None, 0)
    assert 0 <= model.age < PATIENCE * INTERVAL
    assert 0 < model.seconds < 1


def test_a_wrong_number_is_worse_than_none_and_passes_with_the_next_right_one(watched):
    backend, prober = watched
    backend.harm = wrong
    assert becomes(prober, False, PATIENCE * INTERVAL + 1) is not None
    (model,) = prober.health().models
    assert "head 'level' does not reproduce golden sample" in model.fault
    assert model.age is None
    assert model.failures >= 1
    backend.harm = lambda reply: reply
    assert becomes(prober, True, 3) is not None


def test_another_bundles_answer_is_wrong_too(watched):
    backend, prober = watched
    backend.harm = lambda reply: replace(reply, headers={"X-Polyhead-Bundle": "0" * 12})
    assert becomes(prober, False, PATIENCE * INTERVAL + 1) is not None
    assert "bundle 000000000000 answers" in prober.health().models[0].fault


def test_a_model_that_hangs_is_unready_after_three_intervals_and_ready_again_after_it(watched):
    backend, prober = watched
    backend.delay = 20 * INTERVAL
    took = becomes(prober, False, 10 * INTERVAL)
    assert took is not None
    assert took > INTERVAL
    backend.delay = 0.0
    assert becomes(prober, True, 5) is not None


def test_a_full_queue_is_asked_again_and_says_nothing_of_the_model(watched):
    backend, prober = watched
    turns = iter(range(10_000))
    backend.harm = lambda reply: reply if next(turns) % 4 == 3 else refused(reply)
    assert becomes(prober, False, 8 * INTERVAL) is None
    assert backend.asked >= 12, "more often than once an interval"
    assert prober.health().models[0].failures == 0
    backend.harm = refused
    assert becomes(prober, False, 10 * INTERVAL) is not None, "for ever is too long"


def test_behind_a_full_queue_a_model_that_answers_others_is_ready_and_one_that_hangs_is_not(mlp):
    backend, count = Backend(mlp), [0.0]
    backend.harm = refused
    prober = Prober(INTERVAL, lambda _: count[0])
    with SideServer(0, backend, most_bytes=1 << 20) as server:
        prober.watch(served_of(mlp), server.url)
        prober.started()
        end = time.monotonic() + 8 * INTERVAL
        while time.monotonic() < end:
            count[0] += 1
            assert prober.health().ready
            time.sleep(INTERVAL / 5)
        assert becomes(prober, False, 10 * INTERVAL) is not None
        prober.close()


def test_a_model_behind_a_long_queue_that_answers_others_stays_ready(mlp):
    backend, count = Backend(mlp), [0.0]
    backend.delay = 5 * INTERVAL
    prober = Prober(INTERVAL, lambda _: count[0])
    with SideServer(0, backend, most_bytes=1 << 20) as server:
        prober.watch(served_of(mlp), server.url)
        prober.started()
        end = time.monotonic() + 12 * INTERVAL
        while time.monotonic() < end:
            count[0] += 1
            assert prober.health().ready
            time.sleep(INTERVAL / 10)
        assert backend.asked >= 3
        prober.close()


def test_a_slow_model_is_asked_less_often_and_is_ready(mlp):
    backend = Backend(mlp)
    backend.delay = INTERVAL / 2
    prober = Prober(INTERVAL)
    with SideServer(0, backend, most_bytes=1 << 20) as server:
        prober.watch(served_of(mlp), server.url)
        prober.started()
        assert becomes(prober, False, 13 * INTERVAL) is None
        assert 2 <= backend.asked <= 7, "a fifth of its time, at most"
        prober.close()


def test_what_nobody_thought_of_is_a_fault_and_the_samples_go_on(watched, caplog):
    backend, prober = watched
    backend.harm = lambda reply: replace(reply, body=b'{"predictions": []}')
    assert becomes(prober, False, (PATIENCE + 2) * INTERVAL) is not None
    assert "could not be sent or read: IndexError" in prober.health().models[0].fault
    assert "the golden sample of mlp/1.0 could not be sent or read" in caplog.text
    backend.harm = lambda reply: reply
    assert becomes(prober, True, 3) is not None


def test_a_stop_is_unready_at_once_and_a_model_that_went_is_no_fault(watched):
    backend, prober = watched
    backend.harm = refused
    prober.forget(backend.bundle)
    prober.forget(backend.bundle)
    assert prober.health().models == ()
    assert prober.health().ready
    prober.drain()
    assert (prober.health().ready, prober.health().draining) == (False, True)


def test_prometheus_is_told_the_same(watched):
    _, prober = watched
    found = {sample.name: sample for family in prober.collect() for sample in family.samples}
    assert found["polyhead_ready"].value == 1
    assert found["polyhead_model_ready"].labels == {"model": "mlp", "version": "1.0"}
    assert found["polyhead_model_ready"].value == 1
    assert found["polyhead_probe_failures_total"].value == 0
    assert "polyhead_probe_seconds" in found
