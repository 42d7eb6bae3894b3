"""Whose process is at the other end of a connection of the loopback: any user of a machine can open one (Linux)."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

__all__ = ["owner"]

SOCKETS = Path("/proc/net/tcp")  # of our own network; kernel: Documentation/networking/proc_net_tcp
LOCAL, REMOTE, UID = 1, 2, 7  # columns


def owner(peer: tuple[str, int], here: tuple[str, int]) -> int | None:
    """The user id that opened a connection; None where the kernel does not tell.

    Args:
        peer, here: IPv4 address and port of its ends, as they are seen from here.
    """
    wanted = (_end(peer), _end(here))
    try:
        lines = SOCKETS.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    rows = (line.split() for line in lines)
    return next((int(row[UID]) for row in rows if (row[LOCAL], row[REMOTE]) == wanted), None)


def _end(address: tuple[str, int]) -> str:
    """As the kernel prints it: the address as a number of this machine's byte order, and the port."""
    return f"{int.from_bytes(socket.inet_aton(address[0]), sys.byteorder):08X}:{address[1]:04X}"
