"""Requests at a constant rate, whatever the server does: a client that waits for answers goes easy on a slow server.

`python -m tests.e2e.openloop URL RATE SECONDS PATIENCE MEDIA_TYPE < BODY` prints one JSON list per request: when it was
due, when it was over (seconds from the first one), the status (0: no answer in time; -1: the connection broke), and the
Retry-After.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.command import ROOT

IDLE_SECONDS = 5.0  # that a connection is kept; a server may end one that has been idle for longer as we write to it

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Outcome:
    """One request: seconds from the first one's start, and what came of it."""

    due: float
    over: float
    status: int
    retry_after: str | None

    @property
    def seconds(self) -> float:
        return self.over - self.due


def started(url: str, rate: float, seconds: float, patience: float, media_type: str, body: bytes) -> subprocess.Popen:
    """A generator in a process of its own, so that it and what measures it share no interpreter."""
    command = [sys.executable, "-m", "tests.e2e.openloop", url, str(rate), str(seconds), str(patience), media_type]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(body)
    process.stdin.close()
    return process


def outcomes(process: subprocess.Popen) -> list[Outcome]:
    """What came of every request, once all are over."""
    found = [Outcome(*json.loads(line)) for line in process.stdout]
    process.stdout.close()
    assert process.wait(60) == 0
    return found


class Generator:
    """One server and one request, sent again and again over connections that are kept."""

    def __init__(self, url: str, patience: float, media_type: str, body: bytes) -> None:
        address = urlsplit(url)
        self._where = (address.hostname, address.port)
        self._patience = patience
        head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: {media_type}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._idle: list[tuple[float, Connection]] = []  # since when

    async def run(self, rate: float, seconds: float) -> list[Outcome]:
        begin = time.monotonic()
        tasks = []
        for number in range(max(1, round(rate * seconds))):
            due = number / rate
            await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
            tasks.append(asyncio.create_task(self._once(begin, due)))
        return await asyncio.gather(*tasks)

    async def _once(self, begin: float, due: float) -> Outcome:
        try:
            async with asyncio.timeout(max(0.001, begin + due + self._patience - time.monotonic())):
                status, retry = await self._exchange()
        except TimeoutError:
            status, retry = 0, None
        except (OSError, EOFError, ValueError):
            status, retry = -1, None
        return Outcome(due, time.monotonic() - begin, status, retry)

    async def _exchange(self) -> tuple[int, str | None]:
        reader, writer = self._kept() or await asyncio.open_connection(*self._where)
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = [line.partition(":") for line in head.split("\r\n")[1:]]
            headers = {name.lower(): value.strip() for name, _, value in lines}
            await reader.readexactly(int(headers.get("content-length", "0")))
        except BaseException:
            writer.close()
            raise
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((time.monotonic(), (reader, writer)))
        return int(head.split(" ", 2)[1]), headers.get("retry-after")

    def _kept(self) -> Connection | None:
        """The connection that was used last and may still be; those that may not are closed."""
        while self._idle:
            since, (reader, writer) = self._idle.pop()
            if time.monotonic() - since < IDLE_SECONDS and not reader.at_eof():
                return reader, writer
            writer.close()
        return None


def main(arguments: Sequence[str]) -> None:
    url, rate, seconds, patience, media_type = arguments
    generator = Generator(url, float(patience), media_type, sys.stdin.buffer.read())
    for one in asyncio.run(generator.run(float(rate), float(seconds))):
        print(json.dumps([one.due, one.over, one.status, one.retry_after]))


if __name__ == "__main__":
    main(sys.argv[1:])
