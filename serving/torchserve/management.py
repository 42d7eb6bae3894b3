"""TorchServe's management API, as the launcher uses it: over a socket's file that nobody but this user reaches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import DeployError, LaunchError

__all__ = ["Management"]

END_SECONDS = 5.0  # for a worker of a version that is gone
SECONDS = 30.0  # for an answer; nothing that is asked here waits for a model to load


class Management:
    """Asks and tells one TorchServe.

    Args:
        socket: where it listens.
    """

    def __init__(self, socket: Path) -> None:
        # TorchServe says a model's route twice in an answer's log, never its host.
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://management", timeout=SECONDS
        )

    def get(self, target: str) -> httpx.Response:
        """What it tells under a path and query.

        Raises:
            httpx.TransportError: it does not answer.
        """
        return self._http.get(target)

    def describe(self, bundle: Bundle) -> dict[str, Any] | None:
        """What it knows of a version; None where it does not know it, or is not up yet."""
        try:
            response = self.get(f"/models/{bundle.title}")
            found = response.json() if response.status_code == httpx.codes.OK else []
        except (httpx.TransportError, ValueError):  # not up yet
            return None
        return found[0] if isinstance(found, list) and found else None

    def workers_ready(self, bundle: Bundle) -> int:
        """How many workers of a version say that they are ready."""
        found = self.describe(bundle)
        return 0 if found is None else sum(worker.get("status") == "READY" for worker in found.get("workers", []))

    def waiting(self, bundle: Bundle) -> int:
        """How many requests wait in a version's queue.

        Raises:
            LaunchError: it does not answer.
        """
        found = self.describe(bundle)
        if found is None:
            raise LaunchError(f"TorchServe does not tell of model {bundle.title}")
        return int(found["jobQueueStatus"]["pendingRequests"])

    def register(self, store_name: str, workers: int) -> None:
        """Load a folder of the model store. It returns at once; the workers load behind it.

        Raises:
            DeployError: it is refused.
        """
        parameters = {"url": store_name, "initial_workers": workers, "synchronous": "false"}
        self._change("POST", "/models", f"load {store_name}", parameters)

    def set_default(self, bundle: Bundle) -> None:
        """Have requests without a version answered by this one, from the next request on.

        Raises:
            DeployError: it is refused.
        """
        self._change("PUT", f"/models/{bundle.title}/set-default", f"make {bundle.title} the default")

    def unregister(self, bundle: Bundle) -> None:
        """Forget a version and end its workers. Requests that it has taken are lost: have none when you call this.

        Raises:
            DeployError: it is refused, as for the default of several versions.
        """
        found = self.describe(bundle) or {}
        workers = [int(worker.get("pid", 0)) for worker in found.get("workers", [])]
        for last in (False, False, True):
            try:
                self._change("DELETE", f"/models/{bundle.title}", f"remove {bundle.title}")
            except DeployError:
                # It ends the workers, says 500 ("Interrupted while cleaning resources"), and keeps the version without
                # any. Asked again, it has nothing to clean.
                _see_them_end(workers)
                if self.describe(bundle) is None and found:
                    return
                if last:
                    raise
            else:
                break
        _see_them_end(workers)

    def _change(self, method: str, path: str, what: str, parameters: dict[str, Any] | None = None) -> None:
        try:
            response = self._http.request(method, path, params=parameters)
        except httpx.TransportError as error:
            raise DeployError(f"TorchServe did not {what}: it does not answer ({error})") from None
        if not response.is_success:
            try:
                said = str(response.json()["message"])
            except (ValueError, KeyError, TypeError):
                said = response.text
            raise DeployError(f"TorchServe did not {what}: {said:.300} ({response.status_code})")

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()


def _see_them_end(workers: Sequence[int]) -> None:
    """Wait for worker processes to end, and end those that do not: their memory is what the next version needs."""
    processes = []
    for pid in workers:
        if pid > 0:
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
    _, left = psutil.wait_procs(processes, timeout=END_SECONDS)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=END_SECONDS)
