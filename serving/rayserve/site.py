"""What is told about the models on Ray Serve: an actor that has the side server's answers, without its sockets.

It lives as long as the launcher does, proves each model over HTTP, and asks it again at intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import PolyheadError, RequestError
from polyhead.serving.metrics.collector import Workers
from polyhead.serving.metrics.progress import Progress
from polyhead.serving.served import Served
from polyhead.serving.settings import Settings
from polyhead.serving.side.exchange import Asked, refusal
from polyhead.serving.side.prober import Health, Prober
from polyhead.serving.side.roster import Roster
from polyhead.serving.side.routes import Routes
from polyhead.serving.torchserve.readiness import GoldenSamples

__all__ = ["Site", "Told"]

Told = tuple[int, str, bytes, dict[str, str]]  # status, media type, body, headers


class Site:
    """The site of `polyhead.serving.side.routes`, and the actor around it. Arguments and answers are plain values.

    Args:
        url: of the HTTP side, as the actor's machine reaches it.
        settings: of every model, as plain data.
        interval: seconds between two golden samples of each model.
        console: whether there is a page for people.
        metrics: the folder in which the replicas count; None where they run on other machines too.
    """

    def __init__(
        self, url: str, settings: Mapping[str, Any], interval: float, console: bool, metrics: str | None
    ) -> None:
        self.settings = Settings.parse(dict(settings), "settings")
        self.roster = Roster()
        folder = None if metrics is None else Path(metrics)
        self._url, self._prober = url, Prober(interval, *([] if folder is None else [Progress(folder).answered]))
        self._collectors = [self._prober, *([] if folder is None else [Workers(folder)])]
        self._routes = Routes(self, console, {})

    def alive(self) -> bool:
        """Whether the server runs: who asks has just come through it."""
        return True

    def health(self) -> Health:
        """What is known of every model."""
        return self._prober.health()

    def metrics(self) -> bytes:
        """The page for Prometheus; of replicas on other machines, Ray's own has the counts."""
        registry = CollectorRegistry(auto_describe=False)
        for collector in self._collectors:
            registry.register(collector)
        return generate_latest(registry)

    def prove(self, folder: str, about: Mapping[str, Any]) -> str:
        """Have a model answer its golden samples over HTTP, and tell of it from then on.

        Args:
            folder: of its bundle.
            about: graph, runtime, device, why, workers and threads, as in `Served`.

        Returns:
            Nothing, or what is wrong.
        """
        try:
            served = Served(Bundle.open(Path(folder)), **about)
            samples = GoldenSamples(served.bundle, served.graph, served.device)
            with httpx.Client(timeout=self.settings.response_timeout, trust_env=False) as client:
                for row in range(samples.rows):
                    samples.replay(client, self._url, row)
        except PolyheadError as error:
            return str(error)
        self.roster.add(served)
        self._prober.watch(served, self._url)
        return ""

    def started(self) -> None:
        """Every model is there."""
        self._prober.started()

    def drain(self) -> None:
        """From now on nothing is ready."""
        self._prober.drain()

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Told:
        """What the side server would answer."""
        try:
            reply = self._routes(Asked(method, path, headers))
        except RequestError as error:
            reply = refusal(error)
        return reply.status, reply.content_type, reply.body, dict(reply.headers)
