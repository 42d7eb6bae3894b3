"""TCP ports: free ones, and whether the wanted ones can be bound."""

from __future__ import annotations

import errno
import socket

from polyhead.serving.errors import LaunchError
from polyhead.serving.torchserve.configuration import Addresses

__all__ = ["addresses"]

MANAGEMENT_OFFSET, METRICS_OFFSET = 1, 2  # 8080, 8081, 8082: TorchServe's own


def addresses(host: str, port: int, door: bool = False) -> Addresses:
    """The server's addresses, checked to be free.

    Args:
        host: where inference listens; management, metrics and gRPC stay on the loopback.
        port: of inference; management and metrics take the two after it. 0 takes any free ports.
        door: inference moves to a port of the loopback that nobody is told of, and a front door takes its own.

    Raises:
        LaunchError: a port is in use, or may not be bound.
    """
    if ":" in host and not door:
        raise LaunchError(
            f"--host {host}: TorchServe listens on IPv4 addresses and names, not on IPv6: give one of those, "
            "or --front-door"
        )
    chosen: list[int] = []
    for offset in (0, MANAGEMENT_OFFSET, METRICS_OFFSET):
        where = host if offset == 0 else "127.0.0.1"
        wanted = port + offset if port else _free(chosen)
        _require_bindable(where, wanted)
        chosen.append(wanted)
    # Nobody is told of these: gRPC's two, which TorchServe always opens, its own metrics, and inference behind a door.
    for _ in range(4 if door else 3):
        chosen.append(_free(chosen))
    return Addresses(host, *chosen)


def _free(taken: list[int]) -> int:
    """A port that nobody listens on."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
    raise LaunchError("no free TCP port found")


def _require_bindable(host: str, port: int) -> None:
    if not 0 < port < 65535:
        raise LaunchError(f"port {port} is outside 1 to 65534: give another --port")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except socket.gaierror as error:
        raise LaunchError(
            f"host {host!r} is no address of this machine ({error.strerror}): give another --host"
        ) from None
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port in TIME_WAIT is free
        try:
            probe.bind(address)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
            raise LaunchError(
                f"port {port} on {host} {reason}: stop what listens there, or give another --port"
            ) from None
