"""wrk: the closed-loop client of the peak."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.machine import Pinning

__all__ = ["Peak", "WrkFailed", "measure", "parse", "require_wrk", "write_requests"]

SCRIPT = Path(__file__).with_name("wrk.lua")


class WrkFailed(RuntimeError):
    """wrk is not there, or did not end as it should."""


@dataclass(frozen=True)
class Peak:
    """What wrk saw.

    Attributes:
        connections: held open, each with one request in flight.
        rate: good answers a second.
        p50, p99: seconds, of all answers.
        errors: answers other than 2xx, and connections that failed or were closed.
    """

    connections: int
    rate: float
    p50: float
    p99: float
    errors: int


def require_wrk() -> None:
    """wrk and taskset must be there.

    Raises:
        WrkFailed: one is not.
    """
    if shutil.which("wrk") is None:
        raise WrkFailed("wrk is not installed, and measures the peak: apt-get install wrk (Debian, Ubuntu)")
    if shutil.which("taskset") is None:
        raise WrkFailed("taskset is not installed, and pins contenders to cores: apt-get install util-linux")


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Whole HTTP requests, as the script reads them."""
    path.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))


def measure(
    port: int, requests: Path, connections: int, seconds: float, pinning: Pinning, whole_batches: bool = False
) -> Peak:
    """Keep so many requests in flight for so long, from one thread.

    Args:
        port: of the loopback.
        requests: a file of `write_requests`.
        connections: each has one request in flight.
        seconds: at least one.
        pinning: the client's cores.
        whole_batches: the time counts up to the last answer: for servers whose batches take long.

    Raises:
        WrkFailed: with what it printed.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(SCRIPT)]
    command += [f"http://127.0.0.1:{port}/", "--", str(requests), *(["last"] if whole_batches else [])]
    found = subprocess.run([*pinning.client, *command], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise WrkFailed(f"wrk ended with {found.returncode}: {found.stderr.strip() or found.stdout.strip()}")
    return parse(found.stdout, connections)


def parse(output: str, connections: int) -> Peak:
    """The last line that wrk's script printed.

    Raises:
        WrkFailed: there is none.
    """
    line = next((line for line in reversed(output.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise WrkFailed(f"wrk printed no figures: {output.strip()[-400:]}")
    found = json.loads(line)
    errors = sum(found[name] for name in ("status", "connect", "read", "write", "timeout"))
    good = found["requests"] - found["status"]
    return Peak(connections, 1e6 * good / found["microseconds"], found["p50"] / 1e6, found["p99"] / 1e6, errors)
