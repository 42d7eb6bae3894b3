"""The open-loop client: requests leave when they are due, whatever the server does; latency counts from then on.

A client that waits for an answer before it sends the next hides every stall of the server ("coordinated omission"):
here the time that a request waits for a connection counts too. One thread over non-blocking sockets, for an event
loop with coroutines would cost more than the servers do. Runs in a process of its own:
`python -m benchmarks.peers.openloop`.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.poisson import due_times

__all__ = ["Load", "Sample", "read_requests", "run"]

SAMPLES = 200  # answers that are kept to be checked
PATIENCE = 10.0  # seconds after the last request was due
BUFFER = 1 << 18


@dataclass(frozen=True)
class Sample:
    """One answer that was given under load."""

    index: int  # of the request
    status: int
    body: bytes


@dataclass(frozen=True)
class Load:
    """How a server bore a load.

    Attributes:
        rate: requests a second that were due.
        sent, good, errors: requests; errors are answers other than 2xx, closed connections, and none in time.
        p50, p90, p99: seconds from when a request was due to its whole answer.
        late: seconds by which the client itself sent requests late though a connection was free, the 99th percentile.
        cpu: share of a core that the client itself took.
        samples: answers to be checked, taken evenly at random.
    """

    rate: float
    sent: int
    good: int
    errors: int
    p50: float
    p90: float
    p99: float
    late: float
    cpu: float
    samples: list[Sample]


class Connection:
    """One connection with at most one request in flight."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = bytearray()
        self.needed = 0  # bytes of the whole answer, once its head is there
        self.status = 0
        self.request = -1
        self.due = 0.0
        self.unsent = memoryview(b"")

    def send(self, data: bytes) -> bool:
        """Whether all of it left at once."""
        self.received.clear()
        self.needed = 0
        self.unsent = memoryview(data)
        return self.push()

    def push(self) -> bool:
        """Send what is left; whether nothing is."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        return not self.unsent

    def pull(self) -> bool:
        """Read what is there; whether the answer is whole.

        Raises:
            ConnectionError: the server closed the connection, or its answer has no length.
        """
        data = self.socket.recv(BUFFER)
        if not data:
            raise ConnectionError("closed")
        self.received += data
        if not self.needed:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[:end]).lower()
            self.status = int(head[9:12])
            mark = head.find(b"\r\ncontent-length:")
            if mark < 0:
                raise ConnectionError("an answer without Content-Length")
            self.needed = end + 4 + int(head[mark + 17 :].partition(b"\r\n")[0])
        return len(self.received) >= self.needed

    def body(self) -> bytes:
        """Of the whole answer."""
        return bytes(self.received[self.received.find(b"\r\n\r\n") + 4 : self.needed])


class Client:
    """Sends requests as they are due, over a fixed number of connections."""

    def __init__(self, port: int, requests: Sequence[bytes], connections: int, seed: int) -> None:
        self.port, self.requests = port, requests
        self.epoll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.free: list[Connection] = []
        for _ in range(connections):
            self._connect()
        self.random = random.Random(seed)
        self.latencies: list[float] = []
        self.lates: list[float] = []
        self.samples: list[Sample] = []
        self.sent = self.good = self.errors = self.answered = 0

    def _connect(self) -> None:
        connection = Connection(self.port)
        self.open[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket, select.EPOLLIN)
        self.free.append(connection)

    def drive(self, due: Sequence[float]) -> None:
        """Send every request, and wait for the answers."""
        waiting: deque[float] = deque()
        start, position, count = time.perf_counter() + 0.05, 0, len(due)
        deadline = start + due[-1] + PATIENCE
        while position < count or waiting or self.answered + self.errors < self.sent:
            now = time.perf_counter()
            while position < count and start + due[position] <= now:
                waiting.append(start + due[position])
                if self.free:
                    self.lates.append(now - waiting[-1])
                position += 1
            while waiting and self.free:
                self._send(self.free.pop(), waiting.popleft())
            if now > deadline:
                self.errors = count - self.good
                return
            # epoll rounds its timeout up to milliseconds; select keeps it to microseconds.
            pause = start + due[position] - time.perf_counter() if position < count else 0.1
            ready, _, _ = select.select([self.epoll.fileno()], [], [], max(0.0, pause))
            if ready:
                for number, event in self.epoll.poll(0):
                    self._event(self.open[number], event)

    def _send(self, connection: Connection, due: float) -> None:
        connection.request = self.sent % len(self.requests)
        connection.due = due
        self.sent += 1
        if not connection.send(self.requests[connection.request]):
            self.epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _event(self, connection: Connection, event: int) -> None:
        try:
            if event & select.EPOLLOUT and connection.push():
                self.epoll.modify(connection.socket, select.EPOLLIN)
            if event & ~select.EPOLLOUT and connection.pull():
                self._answered(connection)
        except (ConnectionError, ValueError):
            self._lost(connection)

    def _answered(self, connection: Connection) -> None:
        self.latencies.append(time.perf_counter() - connection.due)
        if 200 <= connection.status < 300:
            self.answered += 1
            self.good += 1
        else:
            self.errors += 1
        self._keep(connection)
        connection.request = -1
        self.free.append(connection)

    def _keep(self, connection: Connection) -> None:
        """Reservoir sampling (Vitter 1985): every answer is kept with the same probability."""
        seen = self.answered + self.errors
        place = len(self.samples) if len(self.samples) < SAMPLES else self.random.randrange(seen)
        if place < SAMPLES:
            sample = Sample(connection.request, connection.status, connection.body())
            self.samples[place : place + 1] = [sample]

    def _lost(self, connection: Connection) -> None:
        if connection.request >= 0:
            self.errors += 1
        self.epoll.unregister(connection.socket)
        del self.open[connection.socket.fileno()]
        if connection in self.free:
            self.free.remove(connection)
        connection.socket.close()
        self._connect()

    def close(self) -> None:
        """Close every connection."""
        for connection in self.open.values():
            connection.socket.close()
        self.epoll.close()


def run(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int = 256, seed: int = 0
) -> Load:
    """Bear a load on a server.

    Args:
        port: of the loopback.
        requests: whole ones, sent in turn.
        rate: a second, on average.
        seconds: for so long.
        connections: open from the beginning; a request waits for one where all have one in flight.
        seed: of the arrivals.
    """
    due = due_times(rate, seconds, seed)
    client = Client(port, requests, connections, seed)
    start, spent = time.perf_counter(), time.process_time()
    try:
        client.drive(due.tolist())
    finally:
        client.close()
    cpu = (time.process_time() - spent) / (time.perf_counter() - start)
    p50, p90, p99 = np.percentile(client.latencies or [PATIENCE], [50, 90, 99]).tolist()
    late = float(np.percentile(client.lates or [0.0], 99))
    return Load(rate, client.sent, client.good, client.errors, p50, p90, p99, late, cpu, client.samples)


def read_requests(path: Path) -> list[bytes]:
    """What `wrk.write_requests` wrote."""
    data, requests, start = path.read_bytes(), [], 0
    while start < len(data):
        end = data.index(b"\n", start)
        size = int(data[start:end])
        requests.append(data[end + 1 : end + 1 + size])
        start = end + 1 + size
    return requests


def main() -> None:
    """One load, printed as JSON; bodies of samples in Latin-1, which keeps every byte."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.openloop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    load = run(asked.port, read_requests(asked.requests), asked.rate, asked.seconds, asked.connections, asked.seed)
    content = asdict(load)
    for sample in content["samples"]:
        sample["body"] = sample["body"].decode("latin-1")
    json.dump(content, sys.stdout)


if __name__ == "__main__":
    main()
