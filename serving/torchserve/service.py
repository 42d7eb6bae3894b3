"""Everything that `polyhead serve` runs: TorchServe, the side server, the prober, and the front door before them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from prometheus_client.registry import Collector

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.door import FrontDoor
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.logs import Lines
from polyhead.serving.metrics.page import MetricsPage
from polyhead.serving.metrics.progress import Progress
from polyhead.serving.served import Served
from polyhead.serving.settings import ServiceSettings, Settings
from polyhead.serving.side.control import Control
from polyhead.serving.side.forwarding import Managed, Predictions
from polyhead.serving.side.prober import Health, Prober
from polyhead.serving.side.roster import Roster, in_order
from polyhead.serving.side.routes import Answer, Routes
from polyhead.serving.side.server import SideServer
from polyhead.serving.torchserve import ports
from polyhead.serving.torchserve.configuration import Configuration
from polyhead.serving.torchserve.deploying import Busy, Deployer, Unknown
from polyhead.serving.torchserve.launcher import Server
from polyhead.serving.torchserve.process import STOP_SECONDS
from polyhead.serving.torchserve.readiness import GoldenSamples

__all__ = ["Plan", "Service"]

RESERVED_SECONDS = 6.0  # of drain_timeout, for TorchServe to stop after the last answer: it takes 5.5 whatever it has
RESERVED_SHARE = 0.5  # of drain_timeout, at the most
LEAST_STOP_SECONDS = 1.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """What is to be run, and how.

    Attributes:
        configuration: a parsed config.properties.
        settings: of every model.
        service: of the server as a whole.
        front: of the front door; without `door` there is none.
        host, port: where clients come to; see `ports.addresses`.
        console: show the console on the side server, and hand its predictions on.
        verbose: tell what TorchServe prints while it starts.
        folders: bundles, and folders of bundles, where one that is to be added is looked for.
    """

    configuration: Configuration
    settings: Settings
    service: ServiceSettings
    front: FrontDoorSettings
    host: str = "127.0.0.1"
    port: int = 8080
    console: bool = False
    verbose: bool = False
    folders: Sequence[Path] = ()


class Service:
    """A server and what belongs to it; see `serving/side/routes.py` for what it tells.

    Args:
        bundles: opened bundles, each of another name or version; of each name the highest version is the default.
        plan: how to run.
        log: told every line of the log once the server is ready.
        families: of the page of metrics, besides the server's own.

    Raises:
        LaunchError: two bundles are one model, a port is taken, Java, TorchServe or nginx is missing.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        plan: Plan,
        log: Callable[[str], None] = lambda _: None,
        families: Sequence[Collector] = (),
    ) -> None:
        self.plan, self.settings, self.roster = plan, plan.settings, Roster()
        lines = Lines(log) if plan.settings.log_format == "json" else log
        self.addresses = addresses = ports.addresses(plan.host, plan.port, plan.front.door)
        self._server = Server(
            in_order(bundles, plan.service.default_titles),
            plan.configuration,
            plan.settings,
            addresses,
            lines,
            verbose=plan.verbose,
        )
        self._door = self._front_door(lines) if plan.front.door else None
        self._prober = Prober(plan.service.probe_interval, Progress(self._server.counts).answered)
        self._page = MetricsPage(
            self._server.counts,
            addresses.torchserve_metrics_url,
            [self._prober, *([] if self._door is None else [self._door.counts]), *families],
        )
        self._deployer = Deployer(
            self._server,
            self.roster,
            self._prober,
            lambda: self.path_url,
            plan.folders,
            self._door,
            plan.service.drain_timeout,
        )
        self._predictions = Predictions(addresses.torchserve_url, plan.settings.response_timeout)
        self._side: list[SideServer] = []
        self._end: float | None = None  # of the monotonic clock, by when a drain must be over

    def _front_door(self, log: Callable[[str], None]) -> FrontDoor:
        plan, addresses = self.plan, self.addresses
        try:
            plan.front.require_agreement(plan.settings.response_timeout, plan.configuration.max_request_size)
            return FrontDoor(
                plan.front,
                addresses.host,
                addresses.inference,
                addresses.torchserve_port,
                addresses.metrics,
                self._server.folder / "door",
                log,
                access_log=plan.settings.access_log,
                log_format=plan.settings.log_format,
            )
        except BaseException:
            self._server.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def java(self) -> str:
        """The Java that runs TorchServe, in words."""
        return f"Java {self._server.java.version} of {self._server.java.source}"

    @property
    def engine(self) -> str:
        """What serves, in words."""
        return f"TorchServe ({self.java})"

    @property
    def url(self) -> str:
        """Where clients come to, as this machine reaches it."""
        return self.addresses.url if self._door is None else self._door.url

    @property
    def path_url(self) -> str:
        """The way that golden samples take: where there is a front door, through its listener on the loopback."""
        return self.addresses.torchserve_url if self._door is None else self._door.probe_url

    def start(self, cancelled: Callable[[], bool] = lambda: False) -> list[Served]:
        """Start, and wait until every model has answered its golden samples the way that clients' requests take.

        Args:
            cancelled: asked while waiting; where it says yes, the start is given up.

        Raises:
            LaunchError: something ended, a worker could not load, or time ran out; nothing is left running.
        """
        try:
            self._open_side()
            served = self._server.start(cancelled)
            for one in served:
                self.roster.add(one)
            if self._door is not None:
                self._door.start()
                self._prove_door(served)
            for one in served:
                self._prober.watch(one, self.path_url)
        except BaseException:
            self.stop()
            raise
        self._prober.started()
        return served

    def _open_side(self) -> None:
        """The side server and the view of the management API, before anything is ready: they say so."""
        plan, port = self.plan, self.addresses.metrics
        more: dict[str, tuple[tuple[str, ...], Answer]] = {}
        if plan.console and self._door is None:
            more[r"/predictions/[^/]+(/[^/]+)?"] = (("POST",), self._predictions)
        if plan.configuration.may_deploy:
            more[Control.path] = (("POST",), Control(self._deployer, Busy, Unknown))
        routes = Routes(self, plan.console or self._door is not None, more)
        self._side.append(SideServer(port, routes, plan.configuration.max_request_size))
        view = Managed(self._server.management.get)
        self._side.append(SideServer(self.addresses.management, view, name="management view"))

    def _prove_door(self, served: Sequence[Served]) -> None:
        """The door lets a golden sample of each model through, and its answer back."""
        with httpx.Client(timeout=self.settings.response_timeout, trust_env=False) as client:
            for one in served:
                GoldenSamples(one.bundle, one.graph, one.device).replay(client, self.path_url, 0)

    def alive(self) -> bool:
        """Whether everything runs that must."""
        return self.fault() is None

    def fault(self) -> str | None:
        """What has ended by itself, in words; None where nothing has."""
        status = self._server.exit_code()
        if status is not None:
            return f"TorchServe ended by itself with status {status}:\n{self._server.tail()}"
        status = None if self._door is None else self._door.exit_code()
        if self._door is not None and status is not None:
            return f"nginx, the front door, ended by itself with status {status}:\n{self._door.tail()}"
        return None

    def health(self) -> Health:
        """What is known of every model."""
        return self._prober.health()

    def metrics(self) -> bytes:
        """The page for Prometheus."""
        return self._page.text()

    def drain(self, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Say that nothing is ready, then take no more requests, and answer those that were accepted.

        Args:
            hurry: asked while waiting; where it says yes, what is not answered yet is given up.

        Returns:
            Whether everything was answered.

        TorchServe has no such thing: without a front door it takes requests until it ends. Then this waits until none
        is left, which is for the balancer before it to bring about.
        """
        timeout = self.plan.service.drain_timeout
        self._end = time.monotonic() + timeout
        deadline = self._end - min(RESERVED_SHARE * timeout, RESERVED_SECONDS)
        self._prober.drain()
        self._deployer.close()
        _wait_for(lambda: False, time.monotonic() + self.plan.service.drain_delay, hurry)
        self._prober.close()
        if self._door is None:
            return _wait_for(self._idle, deadline, lambda: hurry() or self._server.exit_code() is not None)
        seconds = max(0.0, deadline - time.monotonic())
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(self._door.quit, seconds)
            if not _wait_for(answered.done, deadline + seconds + STOP_SECONDS, hurry):
                self._door.kill()
            return answered.result()

    def _idle(self) -> bool:
        """Whether TorchServe says that no request is under way; it is asked again where it says nothing."""
        try:
            return self._server.idle(list(self._server.bundles))
        except LaunchError:
            return False

    def stop(self) -> None:
        """Stop everything at once, and leave nothing behind. Safe to call again."""
        self._prober.drain()
        self._deployer.close()
        left = STOP_SECONDS if self._end is None else self._end - time.monotonic()
        if self._door is not None:
            self._door.kill()
        self._server.stop(max(LEAST_STOP_SECONDS, left))
        sides, self._side = self._side, []
        for side in sides:
            side.close()
        self._prober.close()
        self._predictions.close()
        self._page.close()


def _wait_for(condition: Callable[[], bool], deadline: float, hurry: Callable[[], bool]) -> bool:
    """Whether a condition comes true before a time of the monotonic clock, and before somebody hurries."""
    while not hurry() and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(POLL_SECONDS)
    return False
