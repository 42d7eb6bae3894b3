"""The ports that `polyhead serve` takes: free, or taken by a Polyhead that runs already."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from polyhead.serving.doctor.exchange import get
from polyhead.serving.doctor.finding import Finding, good, problem

__all__ = ["ports"]

ROLES = ("inference", "management", "metrics and health")  # of the port that is asked for, and of the two after it
LOOPBACK = "127.0.0.1"


def ports(port: int, running: bool) -> Iterator[Finding]:
    """Whether the three ports can be bound.

    Args:
        port: of inference.
        running: a running server is looked at besides, whose own ports these may be.
    """
    taken = {port + offset: fault for offset in range(len(ROLES)) if (fault := _fault(port + offset)) is not None}
    if not taken:
        yield good("ports", f"{port} to {port + len(ROLES) - 1} are free")
        return
    shown = "; ".join(f"{number} ({ROLES[number - port]}) {fault}" for number, fault in taken.items())
    if _is_polyhead(port):
        yield good("ports", f"{shown}: a Polyhead serves there")
        return
    if running:
        yield good("ports", f"{shown}; the server that was asked answers elsewhere, or there")
        return
    free = next((base for base in range(port + 10, 65000, 10) if not any(_fault(base + k) for k in range(3))), None)
    other = f"polyhead serve --port {free}" if free else "polyhead serve --port 0"
    yield problem(
        "ports",
        shown,
        "polyhead serve cannot listen there",
        f"{other}; ss -ltnp 'sport = :{min(taken)}' names who does",
    )


def _fault(port: int) -> str | None:
    """Why a port cannot be bound; None where it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
        except OverflowError:
            return "is no port: they end at 65535"
    return None


def _is_polyhead(port: int) -> bool:
    """Whether the side server of a Polyhead answers behind this port."""
    answer = get(f"http://{LOOPBACK}:{port + 2}/v2", seconds=2.0)
    return answer is not None and answer.plain().get("name") == "polyhead"
