"""One worker process, seen from the driver: JSON lines both ways, signs of life, and the cause of its death.

Of the descriptors that a worker inherits, the first is for what it says; what libraries print on standard output goes
where their errors go, and the last lines of that are kept, to be quoted when it dies.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from polyhead.serving.scoring.beats import BYTES, Beats, Place

__all__ = ["COMMAND", "LOST", "Death", "Died", "WorkerProcess"]

COMMAND = (sys.executable, "-m", "polyhead.serving.scoring.worker")
LOST = 70  # exit status of a worker whose engine runs nothing any more
LOOK_SECONDS = 0.1  # how often signs of life are looked for
END_SECONDS = 2.0  # between being told to end and being killed
KEPT_LINES = 40
CHUNK = 1 << 16
CURRENT = re.compile(rb"Current thread 0x([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Death:
    """How a process died.

    Attributes:
        cause: `SIGSEGV`, `exit status 3`, or `hung`.
        sure: what it did killed it; nobody else did, as the kernel for want of memory.
        places: where its threads were; of a crash, the thread that crashed, where that is known.
        said: the last lines that it printed.
    """

    cause: str
    sure: bool
    places: tuple[Place, ...]
    said: str = ""


class Died(Exception):
    """The worker process is dead."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.cause)
        self.death = death


class Ended(Exception):
    """The worker process was to end."""


class WorkerProcess:
    """A running worker.

    Args:
        command: what runs it; three numbers are added: the descriptors of its messages, its page and its last words.
        environment: added to ours.
        wanted: whether it is still wanted; asked while we wait for it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        # Of memory: a page of a file on a full disk would end the driver at its first write, without a word.
        self._page = os.fdopen(os.memfd_create("polyhead-beats"), "r+b")
        self._page.truncate(BYTES)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - until `close`
        self.beats = Beats(self._page.fileno())
        self._from, said = os.pipe()
        inherited = (said, self._page.fileno(), self._words.fileno())
        try:
            self._process = subprocess.Popen(
                [*command, *map(str, inherited)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=inherited,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C on the terminal is the driver's; it ends its workers itself
            )
        finally:
            os.close(said)
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._to = self._process.stdin.fileno()
        self._errors = self._process.stderr.fileno()
        self._lines: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._partial = {self._from: b"", self._errors: b""}
        self._messages: deque[dict[str, Any]] = deque()
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._to, self._from, self._errors):
            os.set_blocking(descriptor, False)
        for descriptor in (self._from, self._errors):
            self._selector.register(descriptor, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(
        self, message: Mapping[str, Any], most_seconds: float, look: Callable[[Beats], None] = lambda _beats: None
    ) -> dict[str, Any]:
        """Say something and wait for the answer.

        Args:
            most_seconds: without a sign of life, after which it counts as hung, and is killed.
            look: called now and then while we wait.

        Raises:
            Died: it is dead, or hung and was killed.
            Ended: it is no longer wanted.
        """
        pending = memoryview(orjson.dumps(message) + b"\n")
        self._selector.register(self._to, selectors.EVENT_WRITE)
        count, since, looked = -1, time.monotonic(), 0.0
        while not self._messages:
            if not self._wanted():
                raise Ended
            pending = self._exchange(pending)
            now = time.monotonic()
            if now - looked < LOOK_SECONDS:
                continue
            looked = now
            if self.beats.count != count:
                count, since = self.beats.count, now
            elif now - since > most_seconds:
                raise Died(self._hung())
            look(self.beats)
        if pending:
            self._selector.unregister(self._to)
        return self._messages.popleft()

    def _exchange(self, pending: memoryview) -> memoryview:
        """Write what can be written, read what can be read; returns what is left to write.

        Raises:
            Died: it has closed its end of the messages.
        """
        for key, _ in self._selector.select(LOOK_SECONDS):
            if key.fd == self._to:
                with suppress(BrokenPipeError):  # its death is seen on the other pipe, after its last message
                    pending = pending[os.write(self._to, pending[:CHUNK]) :]
                    if pending:
                        continue
                self._selector.unregister(self._to)
            elif not self._read(key.fd) and key.fd == self._from and not self._messages:
                raise Died(self._dead())
        return pending

    def _read(self, descriptor: int) -> bool:
        """Take in what is there; returns whether there may be more."""
        data = os.read(descriptor, CHUNK)
        if not data:
            self._selector.unregister(descriptor)
            return False
        *lines, self._partial[descriptor] = (self._partial[descriptor] + data).split(b"\n")
        if descriptor == self._errors:
            self._lines.extend(lines)
            self._partial[descriptor] = self._partial[descriptor][-CHUNK:]
        else:
            self._messages.extend(orjson.loads(line) for line in lines)
        return True

    def _dead(self) -> Death:
        """It said its last: what killed it."""
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # closed its pipe, and lives on
            self._process.kill()
            self._process.wait()
            return Death("left without a word", True, tuple(self.beats.places()), self._said())
        if status >= 0:
            cause = "the engine being lost" if status == LOST else f"exit status {status}"
            return Death(cause, True, tuple(self.beats.places()), self._said())
        cause, places = _signal_name(-status), tuple(self.beats.places())
        self._words.seek(0)
        crashed = CURRENT.search(self._words.read())
        thread = None if crashed is None else int(crashed[1], 16)
        own = tuple(place for place in places if place.thread == thread)
        return Death(cause, crashed is not None or -status not in OUTSIDE, own or places, self._said())

    def _hung(self) -> Death:
        self._process.kill()
        self._process.wait()
        return Death("hung", True, tuple(self.beats.places()), self._said())

    def _said(self) -> str:
        with suppress(OSError, ValueError, KeyError):
            while self._read(self._errors):
                pass
        lines = [*self._lines, self._partial[self._errors]]
        return b"\n".join(line for line in lines if line.strip()).decode("utf-8", "replace")

    def close(self) -> None:
        """End it: it sees the end of its input; where it does not, it is killed."""
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        os.close(self._from)
        self.beats.close()
        self._page.close()
        self._words.close()


# Signals by which others end a process; the rest are raised by what it does.
OUTSIDE = frozenset([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
