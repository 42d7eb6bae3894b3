"""The machine: which cores are whose, and what it is."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

__all__ = ["Pinning", "describe", "pinning"]

SERVER_CORES = 2  # a front end and one worker


@dataclass(frozen=True)
class Pinning:
    """Prefixes of commands that fix a process, and all it starts, to cores."""

    server: tuple[str, ...]
    client: tuple[str, ...]
    one_core: int  # of the server's: for the bare forward pass
    words: str


def pinning(cores: list[int] | None = None) -> Pinning:
    """Two cores for the server of every contender, and one for the client where there is a third.

    With two cores in all, server and client share both: a core of its own for the client would leave one to the server,
    on which its front end and its worker could only take turns, and that is what the contenders differ in. wrk's own
    work for a request is the same whoever answers.
    """
    own = sorted(os.sched_getaffinity(0)) if cores is None else cores
    server, client = own[:SERVER_CORES], own[SERVER_CORES : SERVER_CORES + 1]
    shared = not client
    client = client or server
    words = f"server on cores {_list(server)}, client on {'the same' if shared else _list(client)}"
    return Pinning(("taskset", "-c", _list(server)), ("taskset", "-c", _list(client)), server[0], words)


def _list(cores: list[int]) -> str:
    return ",".join(map(str, cores))


def describe() -> dict[str, str | int]:
    """What a reader of a report wants to know of the machine."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a kernel interface
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
