"""Ray, joined where it runs, or started on this machine's loopback and ended again."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polyhead.serving.errors import LaunchError, RuntimeUnavailable

__all__ = ["LOCAL", "connected", "gone_is_done", "hushed", "import_ray", "last_line"]

LOCAL = "local"  # the address of a cluster that is started here
STORE_BYTES = 200 * 1024 * 1024  # of Ray's objects: requests and answers above 100 KB pass through it
# On Linux Ray takes "127.0.0.1" for a wish to be reached by other machines and listens on all addresses, its own being
# the public one; with this, which it reads when it is imported, all its processes listen on the loopback alone.
LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}
# By this Ray's HTTP proxies find what takes a client's hints to Ray itself away.
PROXIED = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "polyhead.serving.rayserve.proxied.middlewares"}
REACH_SECONDS = 5.0  # to a cluster's port
LOOPBACK = ("127.0.0.1", "::1")

logger = logging.getLogger(__name__)


def import_ray(address: str) -> tuple[Any, Any]:
    """Ray and Ray Serve, imported so that nothing is reported to Ray's maker.

    Raises:
        RuntimeUnavailable: they are not installed.
    """
    for name, value in (QUIET | PROXIED | {LOCAL_ONLY: "0"} if address == LOCAL else QUIET).items():
        os.environ.setdefault(name, value)
    try:
        modules = importlib.import_module("ray"), importlib.import_module("ray.serve")
    except ImportError as error:
        raise RuntimeUnavailable(
            f"the engine 'ray' is not installed ({error.name} is missing): pip install 'polyhead[ray]'"
        ) from None
    for name in ("ray", "ray.serve"):  # of what is deployed and taken away we tell ourselves
        logging.getLogger(name).setLevel(logging.ERROR)
    return modules


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
        with hushed(show=address == LOCAL) as said, _own_signals():
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
            _require_loopback()
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


def _require_loopback() -> None:
    """What Ray starts here runs code for whoever reaches it."""
    host = importlib.import_module("ray.util").get_node_ip_address()
    if host not in LOOPBACK:
        raise RuntimeUnavailable(
            f"Ray listens on {host}, not on this machine alone: unset {LOCAL_ONLY}, or set it to 0"
        )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray has SIGTERM end the process in its own way when it starts; here it means: drain, then end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def hushed(show: bool = True) -> Iterator[list[str]]:
    """Keep both output streams to ourselves, also from what is no Python.

    Args:
        show: write all of it after all where something is raised.

    Yields:
        What was written, by lines, once something has been raised; empty until then.
    """
    said: list[str] = []
    with tempfile.TemporaryFile() as kept:
        own = []
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            own.append((stream, os.dup(stream.fileno()), stream.fileno()))
            os.dup2(kept.fileno(), stream.fileno())
        try:
            yield said
        except BaseException:
            kept.seek(0)
            text = kept.read()
            said.extend(text.decode("utf-8", "replace").split("\n"))
            if show:
                os.write(own[-1][1], text)
            raise
        finally:
            for stream, copy, number in own:
                stream.flush()
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def gone_is_done(ray: Any) -> Iterator[None]:
    """Take something away from a cluster, which may be gone itself: then there is nothing left to do."""
    try:
        yield
    except (ray.exceptions.RayError, importlib.import_module("ray.serve.exceptions").RayServeException) as error:
        logger.warning("the Ray cluster was gone before it was asked to end: %s", last_line(error))


def last_line(error: Exception) -> str:
    """What an error says in the end: of Ray's, the cause."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
