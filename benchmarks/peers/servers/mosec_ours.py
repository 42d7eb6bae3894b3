"""mosec's front end before Polyhead's own responder: what differs from `polyhead serve` is the front end alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mosec_server
from mosec import Worker

from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings


class Ours(Worker):
    """Bytes in, bytes out, through `Responder.respond`."""

    resp_mime_type = "application/json"

    def __init__(self) -> None:
        folder, threads = Path(os.environ["PEER_FOLDER"]), int(os.environ["PEER_THREADS"])
        self.media_type = json.loads((folder / "task.json").read_text(encoding="utf-8"))["content_type"]
        settings = Settings(device="cpu", runtime="onnxruntime", threads=threads, workers=1)
        engine = Engine.load(Bundle.open(folder / "bundle"), "onnxruntime", "cpu", threads)
        self.responder = Responder(engine, settings)

    def deserialize(self, data: bytes) -> bytes:
        """The body as it came."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """The answer as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """One batch."""
        media_type = self.media_type
        responses = self.responder.respond([HttpRequest(body, media_type, {}) for body in data])
        refused = next((response for response in responses if response.status != 200), None)
        if refused is not None:
            raise ValueError(refused.body.decode())
        return [response.body for response in responses]


if __name__ == "__main__":
    mosec_server.serve(Ours)
