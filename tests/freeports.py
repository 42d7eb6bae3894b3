"""TCP ports that are still free when a server started later binds them."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

LOWEST, HIGHEST = 20_000, 32_000  # below what the kernel gives to clients' connections, which come at any moment


def free_ports(count: int = 3) -> list[int]:
    """Consecutive ports that nobody listens on: of `polyhead serve`, inference, management and metrics."""
    for first in random.sample(range(LOWEST, HIGHEST), 1000):
        found = list(range(first, first + count))
        try:
            with ExitStack() as stack:
                for port in found:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return found
    raise RuntimeError(f"no {count} free ports in a row")
