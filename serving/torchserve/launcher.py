"""Start TorchServe with bundles, know when each is ready, add and remove some while it runs, stop it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from xml.sax.saxutils import quoteattr

import httpx
import psutil

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import DeployError, LaunchError
from polyhead.serving.logs import JSON_PATTERN
from polyhead.serving.served import Served
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve import readiness
from polyhead.serving.torchserve.busy import any_busy
from polyhead.serving.torchserve.configuration import Addresses, Configuration
from polyhead.serving.torchserve.grpc import write_without_management
from polyhead.serving.torchserve.java import Java, find_java, torchserve_home
from polyhead.serving.torchserve.management import Management
from polyhead.serving.torchserve.process import STOP_SECONDS, Process
from polyhead.serving.torchserve.store import ModelStore

__all__ = ["Served", "Server"]

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
# Environment variables with which TorchServe would overrule the configuration we render.
THEIRS = ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION")
POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.5  # for the last lines of a worker that died to arrive
SETTLED = 6  # times in a row that nothing was found to be under way
SOCKET = ".ts.sock.99999"
LONGEST_SOCKET = 107


class Server:
    """One TorchServe process and its workers.

    Args:
        bundles: opened bundles, each of another name or version; of each name the one that comes first is the default.
        configuration: a parsed config.properties.
        settings: of every model.
        addresses: where to listen; see `ports.addresses`.
        log: told every line that TorchServe and the workers print once the server is ready; before, lines are kept for
            the error message of a start that fails.
        verbose: tell `log` from the beginning.

    Raises:
        LaunchError: two bundles are one model, Java or TorchServe is missing.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        configuration: Configuration,
        settings: Settings,
        addresses: Addresses,
        log: Callable[[str], None] = lambda _: None,
        verbose: bool = False,
    ) -> None:
        titles = [bundle.title for bundle in bundles]
        twice = {title for title in titles if titles.count(title) > 1}
        if twice:
            raise LaunchError(f"model {min(twice)} was given twice: a name and version can be served once")
        self.bundles, self.configuration, self.settings = list(bundles), configuration, settings
        self.addresses = addresses
        self.java: Java = find_java()
        self.home = torchserve_home()
        self._log, self._verbose = log, verbose
        self._process: Process | None = None
        self._tail = ""
        self.folder = _working_folder()
        self.store = ModelStore(self.folder, settings, configuration.max_response_size)
        self.management = Management(self._management_socket)
        self._http = httpx.Client(timeout=settings.response_timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _management_socket(self) -> Path:
        return self.folder / "tmp" / "management"

    @property
    def frontend(self) -> Path:
        """The folder of TorchServe's Java half."""
        return self.home / "ts" / "frontend"

    @property
    def counts(self) -> Path:
        """The folder in which the workers count."""
        return self.store.counts

    def start(self, cancelled: Callable[[], bool] = lambda: False) -> list[Served]:
        """Start, and wait until every model has answered its golden samples through HTTP.

        Args:
            cancelled: asked while waiting; where it says yes, the start is given up.

        Raises:
            LaunchError: the server ended, a worker could not load, or time ran out; nothing is left running.
        """
        try:
            self._write_files()
            self._spawn()
            served = [self._wait_for(bundle, lambda: self._require_starting(cancelled)) for bundle in self.bundles]
        except BaseException:
            self.stop()
            raise
        assert self._process is not None
        self._process.speaks = True
        return served

    def _write_files(self) -> None:
        for name in ("tmp", "logs"):
            (self.folder / name).mkdir()
        write_without_management(self.frontend, self.folder / "classes")
        for bundle in self.bundles:
            self.store.add(bundle)
        models = self.store.names(self.bundles)
        effective = self.configuration.render(self.addresses, self._management_socket, self.store.path, models)
        (self.folder / "config.properties").write_text(effective, encoding="utf-8")
        log4j = LOG_CONFIG.read_text(encoding="utf-8")
        if self.settings.log_format == "json":
            log4j = re.sub(r'pattern="[^"]*"', lambda _: f"pattern={quoteattr(JSON_PATTERN)}", log4j)
        (self.folder / LOG_CONFIG.name).write_text(log4j, encoding="utf-8")

    def _command(self) -> list[str]:
        return [
            str(self.java.executable),
            *self.java.flags(),
            *self.configuration.java_arguments(),
            f"-Dmodel_server_home={self.home}",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j.configurationFile=file://{self.folder / LOG_CONFIG.name}",
            f"-DLOG_LOCATION={self.folder / 'logs'}",
            f"-DMETRICS_LOCATION={self.folder / 'logs'}",
            *("-cp", f"{self.folder / 'classes'}:{self.frontend / '*'}"),
            "org.pytorch.serve.ModelServer",
            *("--python", sys.executable),
            *("-f", str(self.folder / "config.properties")),
            *("-s", str(self.store.path)),
            "-ncs",
            "--disable-token-auth",
        ]

    def _spawn(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in THEIRS}
        # Libraries that nobody tells how many threads to use take this; one who has set it knows why.
        environment.setdefault("OMP_NUM_THREADS", str(self.settings.threads_per_worker()))
        self._process = Process(self._command(), self.folder, environment, self._log, self._verbose)

    def load(self, bundle: Bundle, cancelled: Callable[[], bool] = lambda: False) -> Served:
        """Load a further version into the running server, and wait until it has answered its golden samples.

        Requests without a version are answered as before, unless it is the first of its name.

        Raises:
            PolyheadError: it could not load, or answers wrong; nothing of it is left.
        """
        if bundle.title in [other.title for other in self.bundles]:
            raise DeployError(f"{bundle.title} is served or being loaded: a name and version are served once")
        stored, seen = self.store.add(bundle), set[int]()
        try:
            self.management.register(stored.name, self.settings.workers)
            served = self._wait_for(bundle, lambda: self._require_loading(bundle, seen, cancelled))
        except BaseException:
            with suppress(DeployError):  # that it was never registered is as good
                self.management.unregister(bundle)
            self.store.remove(bundle)
            raise
        self.bundles.append(bundle)
        return served

    def unload(self, bundle: Bundle) -> None:
        """End a version's workers. It must have no requests, and not be the default of several versions.

        Raises:
            DeployError: TorchServe refuses.
        """
        self.management.unregister(bundle)
        self.bundles.remove(bundle)
        self.store.remove(bundle)

    def idle(self, bundles: Sequence[Bundle]) -> bool:
        """Whether no request for some versions waits or is being answered, for a moment that outlasts an answer's way.

        Raises:
            LaunchError: TorchServe does not tell.
        """
        for _ in range(SETTLED):
            if any(self.management.waiting(one) or any_busy(self.store.of(one).reports) for one in bundles):
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _wait_for(self, bundle: Bundle, require: Callable[[], None]) -> Served:
        """Wait for a version's workers, then for its golden samples; `require` raises where waiting makes no sense."""
        deadline = time.monotonic() + self.settings.startup_timeout
        while True:
            require()
            reports = readiness.load_reports(self.store.of(bundle).reports)
            if reports and self.management.workers_ready(bundle) >= self.settings.workers:
                break
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"model {bundle.title} was not ready after {self.settings.startup_timeout} s "
                    f"(polyhead_startup_timeout):\n{self.tail()}"
                )
            time.sleep(POLL_SECONDS)
        report: Mapping[str, Any] = reports[0]
        samples = readiness.GoldenSamples(bundle, report["graph"], report["device"])
        for row in range(samples.rows):
            require()
            samples.replay(self._http, self.addresses.torchserve_url, row)
        threads = self.settings.threads_per_worker()
        graph_id, runtime, device, why = (report[name] for name in ("graph", "runtime", "device", "why"))
        return Served(bundle, graph_id, runtime, device, why, self.settings.workers, threads)

    def _require_starting(self, cancelled: Callable[[], bool]) -> None:
        """Whether waiting on makes sense: nobody has called it off, TorchServe runs, no worker has died."""
        if cancelled():
            raise LaunchError("stopped before the server was ready")
        if self._process is not None and self._process.worker_deaths:
            time.sleep(SETTLE_SECONDS)
            for bundle in self.bundles:  # a worker's own words are better than its traceback
                readiness.load_reports(self.store.of(bundle).reports)
            raise LaunchError(f"a worker died while it was starting:\n{self.tail()}")
        if self.exit_code() is not None:
            raise LaunchError(f"TorchServe ended with status {self.exit_code()} before it was ready:\n{self.tail()}")

    def _require_loading(self, bundle: Bundle, seen: set[int], cancelled: Callable[[], bool]) -> None:
        """The same for one version beside others, whose workers may die and come back meanwhile.

        TorchServe forgets the process of a worker that died, and calls a new one what it calls one that loads: so the
        processes are remembered here.
        """
        if cancelled():
            raise DeployError(f"loading {bundle.title} was called off")
        if self.exit_code() is not None:
            raise LaunchError(f"TorchServe ended with status {self.exit_code()}:\n{self.tail()}")
        found = self.management.describe(bundle) or {}
        seen |= {pid for worker in found.get("workers", []) if (pid := int(worker.get("pid", 0))) > 0}
        if not all(map(psutil.pid_exists, seen)):
            time.sleep(SETTLE_SECONDS)
            readiness.load_reports(self.store.of(bundle).reports)
            raise DeployError(f"a worker of {bundle.title} died while it was loading:\n{self.tail()}")

    def exit_code(self) -> int | None:
        """TorchServe's exit status, None while it runs."""
        return None if self._process is None else self._process.exit_code()

    def tail(self) -> str:
        """The last lines that TorchServe and the workers printed."""
        return self._tail if self._process is None else self._process.tail()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop TorchServe and its workers, and remove what was written for them. Safe to call again.

        Args:
            seconds: to stop by itself, before it is killed.
        """
        process, self._process = self._process, None
        if process is not None:
            process.stop(seconds)
            self._tail = process.tail()
        self.management.close()
        self._http.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _working_folder() -> Path:
    """A new folder for one server. The workers' sockets lie in it, and a socket's path has room for 107 bytes.

    Raises:
        LaunchError: the temporary directory's own path is too long for that.
    """
    folder = Path(tempfile.mkdtemp(prefix="polyhead-"))
    if len(os.fsencode(folder / "tmp" / SOCKET)) > LONGEST_SOCKET:
        folder.rmdir()
        raise LaunchError(
            f"the temporary directory {folder.parent} has too long a path for sockets: set TMPDIR to a short one"
        )
    return folder
