"""Start TorchServe with bundles, know when it is ready, stop it without leaving a process behind."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self
from xml.sax.saxutils import quoteattr

import httpx
import psutil

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.logs import JSON_PATTERN, Lines
from polyhead.serving.metrics.page import MetricsPage
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve import ports, readiness
from polyhead.serving.torchserve.configuration import Addresses, Configuration
from polyhead.serving.torchserve.java import Java, find_java, torchserve_home
from polyhead.serving.torchserve.layout import model_files

__all__ = ["Served", "Server"]

LOG_CONFIG = Path(__file__).with_name("log4j2.xml")
STOP_SECONDS = 15.0  # for TorchServe to stop by itself, before it is killed
# Environment variables with which TorchServe would overrule the configuration we render.
THEIRS = ("TS_CONFIG_FILE", "LOG_LOCATION", "METRICS_LOCATION")
POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.5  # for the last lines of a worker that died to arrive
PR_SET_PDEATHSIG = 1
# What TorchServe 0.12.0 and its worker print when a worker ends while it loads; it would be restarted for minutes.
WORKER_DIED = ("Backend worker process died.", "Load model failed: ", "Auto recovery failed again")
SOCKET = ".ts.sock.99999"
LONGEST_SOCKET = 107


@dataclass(frozen=True)
class Served:
    """One model that is ready.

    Attributes:
        bundle: what is served.
        graph: its id.
        runtime, device: that run it.
        why: these were chosen.
        workers: processes.
        threads: of one forward pass.
    """

    bundle: Bundle
    graph: str
    runtime: str
    device: str
    why: str
    workers: int
    threads: int


class Server:
    """One TorchServe process and its workers.

    Args:
        bundles: opened bundles, each of another name or version.
        configuration: a parsed config.properties.
        settings: of every model.
        host, port: where inference listens; see `ports.addresses`.
        log: told every line that TorchServe and the workers print once the server is ready, as JSON where the settings
            say so; before, lines are kept for the error message of a start that fails.
        verbose: tell `log` from the beginning.

    Raises:
        LaunchError: two bundles are one model, a port is taken, Java or TorchServe is missing.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        configuration: Configuration,
        settings: Settings,
        host: str = "127.0.0.1",
        port: int = 8080,
        log: Callable[[str], None] = lambda _: None,
        verbose: bool = False,
    ) -> None:
        titles = [bundle.title for bundle in bundles]
        twice = {title for title in titles if titles.count(title) > 1}
        if twice:
            raise LaunchError(f"model {min(twice)} was given twice: a name and version can be served once")
        self.bundles, self.configuration, self.settings = list(bundles), configuration, settings
        self.addresses: Addresses = ports.addresses(host, port)
        self.java: Java = find_java()
        self.home = torchserve_home()
        self._log = Lines(log) if settings.log_format == "json" else log
        self._verbose = verbose
        self._tail: deque[str] = deque(maxlen=60)
        self._process: subprocess.Popen[str] | None = None
        self._ready = False
        self._worker_died = False
        self._metrics: MetricsPage | None = None
        self.folder = _working_folder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, cancelled: Callable[[], bool] = lambda: False) -> list[Served]:
        """Start, and wait until every model has answered its golden samples through HTTP.

        Args:
            cancelled: asked while waiting; where it says yes, the start is given up.

        Raises:
            LaunchError: the server ended, a worker could not load, or time ran out; nothing is left running.
        """
        try:
            self._write_files()
            addresses = self.addresses
            self._metrics = MetricsPage(addresses.metrics, self._counts, addresses.torchserve_metrics_url)
            self._spawn()
            served = [self._wait_for(bundle, cancelled) for bundle in self.bundles]
        except BaseException:
            self.stop()
            raise
        self._ready = True
        return served

    def _write_files(self) -> None:
        for name in ("tmp", "logs", "store", self._counts.name):
            (self.folder / name).mkdir()
        for bundle in self.bundles:
            self._reports(bundle).mkdir(parents=True)
            launch = {
                "report": str(self._reports(bundle) / "worker"),
                "digest": bundle.digest,
                "max_response_size": self.configuration.max_response_size,
                "metrics": str(self._counts),
            }
            files = model_files(bundle.spec, self.settings, str(bundle.folder.resolve()), self.settings.device, launch)
            for name, content in files.items():
                path = self.folder / "store" / self._store_name(bundle) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        models = [self._store_name(bundle) for bundle in self.bundles]
        effective = self.configuration.render(self.addresses, self.folder / "store", models)
        (self.folder / "config.properties").write_text(effective, encoding="utf-8")
        log4j = LOG_CONFIG.read_text(encoding="utf-8")
        if self.settings.log_format == "json":
            log4j = re.sub(r'pattern="[^"]*"', lambda _: f"pattern={quoteattr(JSON_PATTERN)}", log4j)
        (self.folder / LOG_CONFIG.name).write_text(log4j, encoding="utf-8")

    def _store_name(self, bundle: Bundle) -> str:
        """A folder's name: by position, since names and versions may both hold dashes and dots."""
        return f"model-{self.bundles.index(bundle)}"

    @property
    def _counts(self) -> Path:
        """Where the workers count."""
        return self.folder / "metrics"

    def _reports(self, bundle: Bundle) -> Path:
        return self.folder / "reports" / self._store_name(bundle)

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
            *("-cp", str(self.home / "ts" / "frontend" / "*")),
            "org.pytorch.serve.ModelServer",
            *("--python", sys.executable),
            *("-f", str(self.folder / "config.properties")),
            *("-s", str(self.folder / "store")),
            "-ncs",
            "--disable-token-auth",
        ]

    def _spawn(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in THEIRS}
        # Libraries that nobody tells how many threads to use take this; one who has set it knows why.
        environment.setdefault("OMP_NUM_THREADS", str(self.settings.threads_per_worker()))
        self._process = subprocess.Popen(
            self._command(),
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and one signal to the group reaches every worker
            preexec_fn=_die_with_parent,
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._pump, args=(self._process.stdout,), daemon=True).start()

    def _pump(self, lines: IO[str]) -> None:
        for line in lines:
            self._tail.append(line.rstrip("\n"))
            self._worker_died |= any(words in line for words in WORKER_DIED)
            if self._ready or self._verbose:
                self._log(line.rstrip("\n"))

    def _wait_for(self, bundle: Bundle, cancelled: Callable[[], bool]) -> Served:
        deadline = time.monotonic() + self.settings.startup_timeout
        with httpx.Client(timeout=self.settings.response_timeout, trust_env=False) as client:
            while True:
                self._require_starting(cancelled)
                reports = readiness.load_reports(self._reports(bundle))
                if reports and readiness.workers_ready(client, self.addresses, bundle, self.settings.workers):
                    break
                if time.monotonic() > deadline:
                    raise LaunchError(
                        f"model {bundle.title} was not ready after {self.settings.startup_timeout} s "
                        f"(polyhead_startup_timeout):\n{self.tail()}"
                    )
                time.sleep(POLL_SECONDS)
            report: Mapping[str, Any] = reports[0]
            golden, graph = bundle.golden(), bundle.manifest.graph(report["graph"])
            for row in range(golden.rows):
                self._require_starting(cancelled)
                readiness.replay_golden(client, self.addresses, bundle, golden, graph, report["device"], row)
        threads = self.settings.threads_per_worker()
        graph_id, runtime, device, why = (report[name] for name in ("graph", "runtime", "device", "why"))
        return Served(bundle, graph_id, runtime, device, why, self.settings.workers, threads)

    def _require_starting(self, cancelled: Callable[[], bool]) -> None:
        """Whether waiting on makes sense: nobody has called it off, TorchServe runs, no worker has died."""
        if cancelled():
            raise LaunchError("stopped before the server was ready")
        if self._worker_died:
            time.sleep(SETTLE_SECONDS)
            for bundle in self.bundles:  # a worker's own words are better than its traceback
                readiness.load_reports(self._reports(bundle))
            raise LaunchError(f"a worker died while it was starting:\n{self.tail()}")
        if self.exit_code() is not None:
            raise LaunchError(f"TorchServe ended with status {self.exit_code()} before it was ready:\n{self.tail()}")

    def exit_code(self) -> int | None:
        """TorchServe's exit status, None while it runs."""
        return None if self._process is None else self._process.poll()

    def tail(self) -> str:
        """The last lines that TorchServe and the workers printed."""
        return "\n".join(self._tail)

    def stop(self) -> None:
        """Stop TorchServe and its workers, and remove what was written for them. Safe to call again."""
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            metrics.close()
        process, self._process = self._process, None
        if process is not None:
            family = _family(process.pid)
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            _kill_all(process.pid, family)
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


def _die_with_parent() -> None:
    """In the child: be told to stop when the launcher is killed, however it dies (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _family(pid: int) -> list[psutil.Process]:
    """A process's descendants."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill_all(group: int, family: Sequence[psutil.Process]) -> None:
    """Kill what is left of a process group and of a family, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=STOP_SECONDS)
