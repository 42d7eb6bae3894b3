"""What is to be run on Ray Serve, and where it listens."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from polyhead.serving.errors import LaunchError
from polyhead.serving.rayserve import cluster
from polyhead.serving.rayserve.scaling import Scaling
from polyhead.serving.settings import ServiceSettings, Settings

if TYPE_CHECKING:
    from polyhead.serving.torchserve.service import Plan

__all__ = ["RayAddresses", "RayPlan", "bindable"]


@dataclass(frozen=True)
class RayPlan:
    """What is to be run, and how.

    Attributes:
        settings: of every model.
        service: of the server as a whole.
        scaling: replicas of each model.
        max_body_bytes: of a request.
        address: of a cluster, or `local` for one that is started here and ended with the server.
        host, port: of HTTP, on every machine of the cluster; port 0 takes one that is free here.
        console: show the console.
    """

    settings: Settings
    service: ServiceSettings
    scaling: Scaling
    max_body_bytes: int
    address: str = cluster.LOCAL
    host: str = "127.0.0.1"
    port: int = 8080
    console: bool = False

    @classmethod
    def over(cls, plan: Plan, address: str | None, replicas: Mapping[str, int | None]) -> Self:
        """The plan for Ray in the place of one for TorchServe.

        Args:
            address: of a cluster as `ray.init` takes it; one on this machine where None.
            replicas: `replicas`, `min_replicas` and `max_replicas` as on the command line, over those of the
                configuration.

        Raises:
            LaunchError: two settings contradict each other, or one has no meaning on Ray.
        """
        if plan.front.door:
            raise LaunchError("--front-door stands before TorchServe: before Ray put a proxy of the cluster's; drop it")
        configuration = plan.configuration
        return cls(
            plan.settings,
            plan.service,
            configuration.ray_with(replicas, "settings"),
            configuration.max_request_size,
            cluster.LOCAL if address is None else address,
            plan.host,
            plan.port,
            plan.console,
        )


@dataclass(frozen=True)
class RayAddresses:
    """Where the server listens: everything is at one port, and nothing is managed over HTTP."""

    host: str
    inference: int
    where = "metrics at /metrics of the same port"

    @property
    def warning(self) -> str:
        """What an operator must know of an address that others reach; empty where none can."""
        if self.host in ("127.0.0.1", "localhost"):
            return ""
        return (
            f"{self.host} is reachable from outside, and Ray has no TLS, keys or limits of ours: put a balancer before "
            "it, which hides /metrics"
        )

    @property
    def url(self) -> str:
        """As this machine reaches it."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.inference}"

    side_url = url

    @property
    def management_url(self) -> str:
        """There is none."""
        return ""

    @property
    def metrics_url(self) -> str:
        """Of the page for Prometheus."""
        return f"{self.url}/metrics"


def bindable(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        LaunchError: it cannot be bound.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise LaunchError(
                f"port {port} on {host} cannot be bound ({error}): stop what listens there, or give another --port"
            ) from None
        return int(probe.getsockname()[1])
