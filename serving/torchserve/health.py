"""Whether a running server's models have ready workers: `python -m polyhead.serving.torchserve.health [URL]`.

URL is the management API's; `POLYHEAD_MANAGEMENT` names it where the argument is left out, as for a container that
serves on another port.

For a container's health check, so it uses the standard library alone and starts quickly. It asks the management API,
because /ping says 200 before any model is loaded and after one failed to load.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from typing import Any

__all__ = ["main", "unready"]

MANAGEMENT = "http://127.0.0.1:8081"
TIMEOUT = 4.0  # seconds for each question


def unready(management: str = MANAGEMENT) -> list[str]:
    """What is not ready, in words; nothing where every model has a ready worker."""
    try:
        models = _get(f"{management}/models?limit=1000")["models"]
        if not models:
            return ["no model is loaded"]
        return [name for name in sorted({m["modelName"] for m in models}) if not _ready(management, name)]
    except (OSError, ValueError, KeyError) as error:
        return [f"the management API does not answer: {error}"]


def _ready(management: str, name: str) -> bool:
    """Whether every version of a model has a ready worker."""
    versions = _get(f"{management}/models/{name}/all")
    return all(any(w["status"] == "READY" for w in version["workers"]) for version in versions)


def _get(url: str) -> Any:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the environment is for others
    with direct.open(url, timeout=TIMEOUT) as response:
        return json.load(response)


def main() -> None:
    """Exit status 0 where everything is ready, 1 where not."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("POLYHEAD_MANAGEMENT", MANAGEMENT)
    faults = unready(given)
    for fault in faults:
        sys.stderr.write(f"not ready: {fault}\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
