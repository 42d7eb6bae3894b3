from __future__ import annotations

import socket
import time
from concurrent.futures import Future, wait
from types import SimpleNamespace

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.rayserve import cluster
from polyhead.serving.rayserve.plan import RayAddresses
from polyhead.serving.rayserve.pulse import Pulse
from polyhead.serving.torchserve.configuration import Addresses


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_told_at_once(scheme: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address, began = f"{scheme}127.0.0.1:{probe.getsockname()[1]}", time.monotonic()
        with (
            pytest.raises(LaunchError, match=r"no Ray cluster at '.*ray start --head"),
            cluster.connected(None, address, 1),
        ):
            pass
    assert time.monotonic() - began < 5


class Answering:
    """An actor, and what Ray knows of its answers."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self) -> None:
        self.asked: list[Future[bool]] = []
        self.alive = SimpleNamespace(remote=self._ask)

    def _ask(self) -> Future[bool]:
        self.asked.append(Future())
        return self.asked[-1]

    def wait(self, questions: list[Future[bool]], timeout: float) -> tuple[list[Future[bool]], list[Future[bool]]]:
        done, open_ = wait(questions, timeout)
        return list(done), list(open_)

    def get(self, question: Future[bool]) -> bool:
        assert question.done(), "this would wait for as long as the cluster hangs"
        return question.result()


def test_a_pulse_is_felt_without_waiting() -> None:
    actor = Answering()
    pulse = Pulse(actor, actor, silence=0.2)
    assert [pulse.fault(), pulse.fault()] == [None, None]
    assert len(actor.asked) == 1, "one question at a time"
    actor.asked[0].set_result(True)
    assert [pulse.fault(), pulse.fault()] == [None, None]
    assert len(actor.asked) == 2
    time.sleep(0.25)
    assert "has given no answer for 0.2 s" in str(pulse.fault())
    actor.asked[1].set_exception(RuntimeError("a page\nof its\nThe actor is dead"))
    assert pulse.fault() == "the Ray cluster, or our part in it, has gone: The actor is dead"


@pytest.mark.parametrize(
    ("addresses", "warning", "where"),
    [
        (RayAddresses("0.0.0.0", 8080), "put a balancer before it, which hides /metrics", "/metrics of the same port"),
        (RayAddresses("127.0.0.1", 8080), "", "/metrics of the same port"),
        (Addresses("0.0.0.0", 1, 2, 3, 4, 5, 6), "use --front-door", "management and metrics on loopback"),
        (Addresses("0.0.0.0", 1, 2, 3, 4, 5, 6, behind=7), "", "management and metrics on loopback"),
        (Addresses("127.0.0.1", 1, 2, 3, 4, 5, 6), "", "management and metrics on loopback"),
    ],
)
def test_each_engine_says_what_is_true_of_its_addresses(
    addresses: RayAddresses | Addresses, warning: str, where: str
) -> None:
    assert warning in addresses.warning
    assert bool(addresses.warning) == bool(warning)
    assert where in addresses.where
