"""The front door: nginx, and what config.properties asks of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from polyhead.serving.doctor.finding import Finding, good, problem, warning
from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.keys import read_keys
from polyhead.serving.frontdoor.nginx import find_nginx
from polyhead.serving.frontdoor.settings import FrontDoorSettings

__all__ = ["front_door"]

INSTALL = "apt-get install nginx-light (Debian, Ubuntu)"


def front_door(settings: FrontDoorSettings, find: Callable[[], Path] = find_nginx) -> Iterator[Finding]:
    """Whether there is an nginx, where one is wanted, and whether the files that it needs can be used.

    Args:
        settings: of the door.
        find: nginx; raises LaunchError where there is none.
    """
    try:
        nginx = find()
    except LaunchError:
        if settings.door:
            why = "polyhead_front_door=true: the server would not start"
            yield problem("front door", "no nginx", why, f"{INSTALL}, or polyhead_front_door=false")
            return
        why = "without it TorchServe, which gets no more fixes, answers the network itself"
        yield warning("front door", "no nginx", why, f"{INSTALL}, then polyhead serve --front-door")
        return
    for key, path in settings.files.items():
        if not os.access(path, os.R_OK):
            yield problem(
                "front door", f"{path} cannot be read", "the server would not start", f"polyhead_front_{key}="
            )
            return
    keys = read_keys(settings.files["api_keys"]) if settings.api_keys else {}
    said = subprocess.run([str(nginx), "-v"], capture_output=True, text=True, timeout=10, check=False).stderr.strip()
    version = said.removeprefix("nginx version: ") or "nginx"
    guarded = ["TLS" if settings.tls else "no TLS", f"{len(keys)} API keys" if keys else "no API keys"]
    guarded += ["clients' certificates"] if settings.client_ca else []
    state = f"on, {', '.join(guarded)}" if settings.door else "off in this configuration (--front-door opens it)"
    yield good("front door", f"{version} ({nginx}): {state}")
