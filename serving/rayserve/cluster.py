"""Ray, joined where it runs, or started on this machine's loopback and ended again."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from polyhead.serving import raystart
from polyhead.serving.errors import LaunchError
from polyhead.serving.raystart import LOCAL_ONLY, last_line, own_signals, require_loopback

__all__ = ["LOCAL", "connected", "gone_is_done", "hushed", "import_ray"]

LOCAL = "local"  # the address of a cluster that is started here
STORE_BYTES = 200 * 1024 * 1024  # of Ray's objects: requests and answers above 100 KB pass through it
QUIET = {"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}
# By this Ray's HTTP proxies find what takes a client's hints to Ray itself away.
PROXIED = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "polyhead.serving.rayserve.proxied.middlewares"}
REACH_SECONDS = 5.0  # to a cluster's port

logger = logging.getLogger(__name__)


def import_ray(address: str) -> tuple[Any, Any]:
    """Ray and Ray Serve, imported so that nothing is reported to Ray's maker.

    Raises:
        RuntimeUnavailable: they are not installed.
    """
    local = address == LOCAL
    ray, serve = raystart.import_ray(["ray", "ray.serve"], QUIET | PROXIED if local else QUIET, local)
    for name in ("ray", "ray.serve"):  # of what is deployed and taken away we tell ourselves
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray, serve


@contextmanager
def connected(ray: Any, address: str, cores: int) -> Iterator[None]:
    """Ray, ready; of a cluster of our own nothing is left afterwards.

    Args:
        address: of a running cluster as `ray.init` takes it, or `local`.
        cores: that a cluster of our own shares out.

    Raises:
        LaunchError: no cluster is reached there.
        RuntimeUnavailable: a cluster of our own could be reached from other machines.
    """
    own: dict[str, Any] = {"address": address}
    _require_listener(address)
    if address == LOCAL:
        own |= {"num_cpus": cores, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    said: list[str] = []
    try:
        with hushed(show=address == LOCAL) as said, own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, namespace="polyhead", **own)
    except Exception as error:  # noqa: BLE001 - Ray raises bare ones, as when a busy machine is slow to start it
        if address == LOCAL:
            raise LaunchError(
                f"Ray did not start on this machine ({last_line(error)}): is it very busy? Try again, or start one "
                "beforehand (ray start --head) and give --address auto"
            ) from None
        logged = [line.partition("] ")[2] for line in said if line.startswith("[")]  # the cause is often there alone
        why = "; ".join([last_line(error), *logged[-1:]])
        raise LaunchError(
            f"no Ray cluster at {address!r} ({why}): "
            "start one (ray start --head), or leave --address out for one on this machine"
        ) from None
    try:
        if address == LOCAL:
            require_loopback(f"unset {LOCAL_ONLY}, or set it to 0")
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself would look for a cluster for half a minute, and then print pages.

    Raises:
        LaunchError: nothing listens at HOST:PORT, or ray://HOST:PORT.
    """
    host, separator, port = address.removeprefix("ray://").partition("?")[0].rpartition(":")
    if not separator or not port.isdecimal():
        return  # a word of Ray's
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise LaunchError(
            f"no Ray cluster at {address!r} ({error}): start one (ray start --head), or leave --address out for one on "
            "this machine"
        ) from None


def hushed(show: bool = True) -> AbstractContextManager[list[str]]:
    """Keep both output streams to ourselves; see `raystart.hushed`."""
    return raystart.hushed(sys.stdout.fileno(), sys.stderr.fileno(), show=show)


@contextmanager
def gone_is_done(ray: Any) -> Iterator[None]:
    """Take something away from a cluster, which may be gone itself: then there is nothing left to do."""
    try:
        yield
    except (ray.exceptions.RayError, importlib.import_module("ray.serve.exceptions").RayServeException) as error:
        logger.warning("the Ray cluster was gone before it was asked to end: %s", last_line(error))
