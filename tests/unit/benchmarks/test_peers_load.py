"""The open-loop client: when requests are due, and what a stall of the server looks like."""

import socket
import threading
import time

import numpy as np
import pytest

from benchmarks.peers.openloop import read_requests, run
from benchmarks.peers.poisson import due_times
from benchmarks.peers.wrk import write_requests

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n"


class Server:
    """Answers every request with its own body, but stands still once, for a while, and refuses bodies of `no`."""

    def __init__(self, stall=0.0, after=50):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.gate, self.answered, self.stall, self.after = threading.Lock(), 0, stall, after
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.answer, args=(connection,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def answer(self, connection):
        with connection:
            while data := connection.recv(4096):
                with self.gate:
                    self.answered += 1
                    if self.answered == self.after:
                        time.sleep(self.stall)
                status = b"503 Busy" if data.endswith(b"no") else b"200 OK"
                connection.sendall(b"HTTP/1.1 %s\r\ncontent-LENGTH: 2\r\n\r\n%s" % (status, data[-2:]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


def test_arrivals_are_a_poisson_process():
    due = due_times(2000.0, 10.0, seed=1)
    gaps = np.diff(due)
    assert len(due) == pytest.approx(20_000, rel=0.05)
    assert due[0] >= 0
    assert due[-1] < 10
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an exponential distribution they are equal
    assert np.array_equal(due, due_times(2000.0, 10.0, seed=1))
    with pytest.raises(ValueError, match="both must be above 0"):
        due_times(0.0, 1.0, seed=1)


def test_a_stall_of_the_server_shows_in_every_request_that_was_due_meanwhile():
    with Server(stall=0.4) as server:
        load = run(server.port, [REQUEST + b"ok"], rate=300.0, seconds=1.0, connections=8)
    assert load.errors == 0
    assert load.good == load.sent
    # 0.4 of 1 s: some 120 of 300 requests were due meanwhile. A client that waits would have counted 8.
    assert load.p90 > 0.1
    assert load.p99 > 0.3


def test_answers_come_back_to_the_request_they_belong_to_and_refusals_are_counted():
    bodies = [b"%02d" % index for index in range(10)] + [b"no"]
    with Server() as server:
        load = run(server.port, [REQUEST + body for body in bodies], rate=220.0, seconds=0.5, connections=4)
    assert load.good + load.errors == load.sent
    assert load.errors == sum(index % 11 == 10 for index in range(load.sent))
    assert len(load.samples) == min(200, load.sent)
    assert all(sample.body == bodies[sample.index] for sample in load.samples)
    assert {sample.status for sample in load.samples} == {200, 503}
    assert 0 < load.cpu <= 1.5


def test_requests_survive_the_file_that_wrk_reads(tmp_path):
    requests = [REQUEST + bytes(range(256)), b"", b"12\n34"]
    write_requests(tmp_path / "requests", requests)
    assert read_requests(tmp_path / "requests") == requests
