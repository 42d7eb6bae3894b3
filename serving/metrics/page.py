"""The page that Prometheus reads: our families, and TorchServe's own behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.registry import Collector

from polyhead.serving.metrics.collector import Workers

__all__ = ["MetricsPage"]

UPSTREAM_SECONDS = 5.0  # for TorchServe's own page


class MetricsPage:
    """Makes the page of one server.

    Args:
        folder: where the workers count.
        torchserve: the address of TorchServe's own page.
        more: further families.
    """

    def __init__(self, folder: Path, torchserve: str, more: Sequence[Collector] = ()) -> None:
        self._collectors = [Workers(folder), *more]
        self._torchserve = torchserve
        self._http = httpx.Client(timeout=UPSTREAM_SECONDS, trust_env=False)

    def text(self) -> bytes:
        """The page, in the text format 0.0.4 of Prometheus."""
        theirs = self._theirs()
        registry = CollectorRegistry(auto_describe=False)
        for collector in self._collectors:
            registry.register(collector)
        up = Gauge("polyhead_torchserve_up", "Whether TorchServe gave its own metrics", registry=registry)
        up.set(theirs is not None)
        return generate_latest(registry) + (theirs or b"")

    def _theirs(self) -> bytes | None:
        """TorchServe's own page, None where it gives none."""
        try:
            response = self._http.get(self._torchserve)
        except httpx.HTTPError:  # not up yet, or busy
            return None
        return response.content if response.status_code == httpx.codes.OK else None

    def close(self) -> None:
        """Let go of its connection. Safe to call again."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
