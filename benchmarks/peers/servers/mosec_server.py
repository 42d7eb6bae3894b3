"""mosec, as its documentation shows it: bodies batched by its Rust front end, one Python worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import arguments
from mosec import Server, Worker
from work import Work


class Model(Worker):
    """Bytes in, bytes out: the work itself runs over the whole batch."""

    resp_mime_type = "application/json"

    def __init__(self) -> None:
        self.work = Work(Path(os.environ["PEER_FOLDER"]), int(os.environ["PEER_THREADS"]))

    def deserialize(self, data: bytes) -> bytes:
        """The body as it came."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """The answer as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """One batch."""
        return self.work.answer(data)


def serve(worker: type[Worker]) -> None:
    """Serve one stage. Workers are spawned: they read their settings from the environment."""
    asked = arguments.parse()
    os.environ["PEER_FOLDER"], os.environ["PEER_THREADS"] = str(asked.folder), str(asked.threads)
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(asked.port), "--log-level", "warning"]
    server: Any = Server()
    server.append_worker(worker, num=asked.workers, max_batch_size=asked.batch, max_wait_time=asked.delay)
    server.run()


if __name__ == "__main__":
    serve(Model)
