"""Whether a running server wants requests: `python -m polyhead.serving.torchserve.health [URL]`.

URL is the side server's, on the loopback two ports after the server's own; `POLYHEAD_HEALTH` names it where the
argument is left out, as for a container that serves on another port.

For a container's health check, so it uses the standard library alone and starts quickly. The answer is made of golden
samples that every model has answered through the real path (serving/side/prober.py). TorchServe's /ping is not asked:
it says 200 before any model is loaded, and after one failed to load.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

__all__ = ["main", "unready"]

SIDE = "http://127.0.0.1:8082"
PATH = "/v2/health/ready"
TIMEOUT = 4.0  # seconds


def unready(url: str = SIDE) -> list[str]:
    """What is not ready, in words; nothing where every model answers and nobody has asked the server to stop."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the environment is for others
    try:
        try:
            with direct.open(url.rstrip("/") + PATH, timeout=TIMEOUT) as response:
                found = json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            found = json.load(error)
        if found["ready"]:
            return []
        faults = [
            f"{model['name']}/{model['version']}: {model['fault'] or 'no answer yet'}"
            for model in found["models"]
            if not model["ready"]
        ]
        return faults or [f"the server is {found['state']}"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{url} does not tell how it is: {error}"]


def main() -> None:
    """Exit status 0 where everything is ready, 1 where not."""
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("POLYHEAD_HEALTH", SIDE)
    faults = unready(given)
    for fault in faults:
        sys.stderr.write(f"not ready: {fault}\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
