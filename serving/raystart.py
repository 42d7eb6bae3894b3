"""Ray, imported and started as both engines need it: quiet, on the loopback alone, and without our signals."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from polyhead.serving.errors import RuntimeUnavailable

__all__ = ["LOCAL_ONLY", "hushed", "import_ray", "last_line", "own_signals", "require_loopback"]

# On Linux Ray takes "127.0.0.1" for a wish to be reached by other machines and listens on all addresses, its own being
# the public one; with this, which it reads when it is imported, all its processes listen on the loopback alone.
LOCAL_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
UNREPORTED = {"RAY_USAGE_STATS_ENABLED": "0"}  # to its maker
LOOPBACK = ("127.0.0.1", "::1")


def import_ray(modules: Sequence[str], environment: Mapping[str, str], local: bool) -> list[Any]:
    """Modules of Ray, in order.

    Args:
        environment: that Ray reads when it is imported; what is set already stays.
        local: whether a cluster will be started here.

    Raises:
        RuntimeUnavailable: they are not installed.
    """
    wanted = {**UNREPORTED, **environment, **({LOCAL_ONLY: "0"} if local else {})}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        return [importlib.import_module(name) for name in modules]
    except ImportError as error:
        raise RuntimeUnavailable(
            f"the engine 'ray' is not installed ({error.name} is missing): pip install 'polyhead[ray]'"
        ) from None


def require_loopback(mend: str) -> None:
    """What Ray starts here runs code for whoever reaches it.

    Args:
        mend: what to do where it can be reached from other machines.

    Raises:
        RuntimeUnavailable: it can.
    """
    host = importlib.import_module("ray.util").get_node_ip_address()
    if host not in LOOPBACK:
        raise RuntimeUnavailable(f"Ray listens on {host}, not on this machine alone: {mend}")


@contextmanager
def own_signals() -> Iterator[None]:
    """Ray has SIGTERM end the process in its own way when it starts; here it means what it meant before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def hushed(*descriptors: int, show: bool = True) -> Iterator[list[str]]:
    """Keep output streams to ourselves, also from what is no Python.

    Args:
        descriptors: of standard output, standard error, or both.
        show: write all of it to the last one after all where something is raised.

    Yields:
        What was written, by lines, once something has been raised; empty until then.
    """
    said: list[str] = []
    with tempfile.TemporaryFile() as kept:
        _flush()
        own = [(os.dup(number), number) for number in descriptors]
        for number in descriptors:
            os.dup2(kept.fileno(), number)
        try:
            yield said
        except BaseException:
            kept.seek(0)
            text = kept.read()
            said.extend(text.decode("utf-8", "replace").split("\n"))
            if show:
                os.write(own[-1][0], text)
            raise
        finally:
            _flush()
            for copy, number in own:
                os.dup2(copy, number)
                os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def last_line(error: Exception) -> str:
    """What an error says in the end: of Ray's, the cause."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
