"""The front door's process: nginx, started, reloaded when a file changed, and stopped without losing a request."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.counts import Counts
from polyhead.serving.frontdoor.keys import read_keys
from polyhead.serving.frontdoor.log import LogLines, cleaned
from polyhead.serving.frontdoor.nginx import Place, find_nginx, render
from polyhead.serving.frontdoor.retired import Retired
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.frontdoor.watch import Watch
from polyhead.serving.parent import die_with_parent
from polyhead.serving.settings import LogFormat

__all__ = ["FrontDoor"]

START_SECONDS = 10.0
POLL_SECONDS = 0.02
CONF = "nginx.conf"
CRASH = re.compile(r"worker process \d+ exited on signal")


class FrontDoor:
    """One nginx before one TorchServe.

    Args:
        settings: of the door.
        host, port: where it listens; 0 is any free port.
        inference_port: of TorchServe, on the loopback.
        side_port: of the side server, on the loopback.
        folder: private, nginx's own; it is made.
        log: told every line that nginx prints.
        probe_port: of the second listener, on the loopback, without keys and limits; 0 is any free port.
        access_log: one line of JSON per request.
        log_format: of the lines of nginx's own that `log` is told.

    Raises:
        LaunchError: there is no nginx, or a file that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: FrontDoorSettings,
        host: str,
        port: int,
        inference_port: int,
        side_port: int,
        folder: Path,
        log: Callable[[str], None] = lambda _: None,
        *,
        probe_port: int = 0,
        access_log: bool = False,
        log_format: LogFormat = "text",
    ) -> None:
        self.settings, self.host, self.folder = settings, host, folder
        self.port = port or _free_port(host)
        self.probe_port = probe_port  # 0 until it starts: models load for minutes, and a port would be gone by then
        self._inference_port, self._side_port, self._access_log = inference_port, side_port, access_log
        self._nginx = find_nginx()
        self._log = LogLines(log, log_format)
        self.counts = Counts(folder)
        self._tail: deque[str] = deque(maxlen=20)
        self._process: subprocess.Popen[str] | None = None
        self._pumps: list[threading.Thread] = []
        self._closed = threading.Event()
        self._watch = Watch(settings.files, self._take)
        self._reloading = threading.Lock()
        self._crashes = 0
        self._temporary = folder
        self._retired = Retired(folder)

    @property
    def url(self) -> str:
        """The door, as this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{'https' if self.settings.tls else 'http'}://{host}:{self.port}"

    @property
    def probe_url(self) -> str:
        """The same paths on the loopback, without TLS, keys and limits."""
        return f"http://127.0.0.1:{self.probe_port}"

    def start(self) -> None:
        """Start nginx, and wait until it listens.

        Raises:
            LaunchError: it ends, or does not listen in time; its own words.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:  # nginx's workers run as another user then, and must reach this, wherever we are
            self._temporary = Path(tempfile.mkdtemp(prefix="polyhead-door-"))
            self._temporary.chmod(0o711)
        self._retired = Retired(self._temporary / "retired")
        try:
            self._retired.open()
            self.counts.open()
            self._open()
        except BaseException:
            self.kill()
            raise
        self._watch.start()

    def _open(self) -> None:
        """Start nginx with a port of the loopback that was free just before, a second time where it is not any more."""
        chosen = self.probe_port
        for last in (False, True):
            self.probe_port = chosen or _free_port("127.0.0.1")
            self._write(self.folder / CONF)
            self._spawn()
            try:
                self._wait_until_it_listens()
            except LaunchError:
                if last or chosen or f"bind() to 127.0.0.1:{self.probe_port} failed" not in self.tail():
                    raise
                self._tail.clear()
            else:
                return

    def _place(self) -> Place:
        """Where the door stands, with the keys as they are now."""
        keys = read_keys(self.settings.files["api_keys"]) if self.settings.api_keys else {}
        for key, file in self.settings.files.items():
            if not os.access(file, os.R_OK):
                raise LaunchError(f"{file}: cannot be read: check polyhead_front_{key}")
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        hosts = ["[::]", "0.0.0.0"] if host == "[::]" else [host]  # noqa: S104 - every address, as asked for
        return Place(
            listen=[f"{each}:{self.port}" for each in hosts],
            probe_port=self.probe_port,
            inference_port=self._inference_port,
            side_port=self._side_port,
            folder=self.folder,
            temporary=self._temporary,
            retired=self._retired.folder,
            keys=keys,
            access_log=self._access_log,
            crashes=self._crashes,
        )

    def _write(self, path: Path) -> None:
        """Write the configuration, which holds the keys: for us alone, and whole or not at all."""
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(render(self.settings, self._place()), encoding="utf-8")
        temporary.replace(path)

    def _command(self, configuration: Path) -> list[str]:
        return [str(self._nginx), "-p", str(self.folder), "-e", "stderr", "-c", str(configuration)]

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            self._command(self.folder / CONF),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches us alone, and one signal to the group reaches every worker
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pumps = [
            threading.Thread(target=self._pump, args=(self._process.stderr, self._complain), daemon=True),
            threading.Thread(target=self._pump, args=(self._process.stdout, self._log.access), daemon=True),
        ]
        for pump in self._pumps:
            pump.start()

    def _pump(self, lines: IO[str], tell: Callable[[str], None]) -> None:
        with lines:
            for line in lines:
                tell(line.rstrip("\n"))

    def _complain(self, line: str) -> None:
        line = cleaned(line)
        self._tail.append(line)
        self._log.error(line)
        if CRASH.search(line) and not self._closed.is_set():
            self._count_anew()

    def _count_anew(self) -> None:
        """A worker died: what it had counted as under way stays counted, and in the end no room would be left."""
        self._crashes += 1
        try:
            self.reload()
        except (LaunchError, subprocess.SubprocessError, OSError) as error:
            self._log.say(str(error), "error")
            self._signal(signal.SIGHUP)  # with the old files: of TorchServe's requests the count begins anew

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.exit_code() is not None:
                for pump in self._pumps:
                    pump.join(1)
                raise LaunchError(f"nginx, the front door, ended with status {self.exit_code()}:\n{self.tail()}")
            if self._answers():
                return
            if time.monotonic() > deadline:
                raise LaunchError(f"nginx, the front door, did not listen within {START_SECONDS:.0f} s:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def _answers(self) -> bool:
        """Whether a worker answers; that a port is open says less, for nginx opens one while it waits for another."""
        try:
            with socket.create_connection(("127.0.0.1", self.probe_port), timeout=1) as connection:
                connection.sendall(b"GET /none HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return connection.recv(5) == b"HTTP/"
        except OSError:
            return False

    def tail(self) -> str:
        """The last lines of nginx's error log."""
        return "\n".join(self._tail)

    def exit_code(self) -> int | None:
        """nginx's exit status, None while it runs."""
        return None if self._process is None else self._process.poll()

    def refuse(self, titles: Sequence[str]) -> None:
        """Answer 404 to requests that name one of these, and to no others; see `Retired`."""
        self._retired.set(titles)

    def reload(self) -> None:
        """Read keys and certificates anew; requests that are under way are answered by the workers they came to.

        Raises:
            LaunchError: a file cannot be used; everything stays as it was.
            OSError, subprocess.SubprocessError: there was no room, or no time, to try them; likewise.
        """
        with self._reloading:
            candidate = self.folder / "candidate.conf"
            self._write(candidate)
            command = [*self._command(candidate), "-t", "-q"]
            checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=START_SECONDS)
            if checked.returncode:
                candidate.unlink()
                raise LaunchError(f"the front door keeps its old files: {checked.stderr.strip():.500}")
            candidate.replace(self.folder / CONF)
            self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _take(self) -> bool:
        """Read files that changed; says whether they were looked into, good or bad."""
        try:
            self.reload()
        except LaunchError as error:
            self._log.say(str(error), "error")
        except (subprocess.SubprocessError, OSError) as error:
            # Nothing is wrong with the files: a key that was taken back must not stay good for that.
            self._log.say(f"the front door could not read its changed files, and tries again: {error}", "error")
            return False
        else:
            self._log.say("the front door has read its keys and certificates anew")
        return True

    def quit(self, timeout: float) -> bool:
        """Take no more connections, answer what was accepted, end. Safe to call again.

        Args:
            timeout: seconds; what is not answered by then is cut off.

        Returns:
            Whether everything was answered.
        """
        self._closed.set()
        self._watch.close()
        process = self._process
        if process is None:
            return True
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self.kill()
        return process.returncode == 0

    def kill(self) -> None:
        """End nginx at once, its workers with it. Safe to call again."""
        self._closed.set()
        self._watch.close()
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pump in self._pumps:
            pump.join(1)
        self.counts.close()
        if self._temporary != self.folder:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host.strip("[]"), 0))
        return int(probe.getsockname()[1])
