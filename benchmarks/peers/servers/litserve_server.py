"""LitServe: a LitAPI whose requests are batched. It reads JSON bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import arguments
import litserve
import numpy as np
import orjson
from fastapi import Response
from work import Work, answers


class Model(litserve.LitAPI):  # type: ignore[misc]
    """LitServe has parsed the body."""

    def __init__(self, folder: Path, threads: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.folder, self.threads = folder, threads

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        """Load the model."""
        self.work = Work(self.folder, self.threads)

    def decode_request(self, request):  # type: ignore[no-untyped-def] # an annotation would be FastAPI's to read
        """The body's rows `[rows, …]`."""
        name = self.work.task["input"]
        return np.array([row[name] for row in request["instances"]], dtype=np.float32)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """As they are: `predict` joins them."""
        return inputs

    def predict(self, x: list[Any]) -> list[Any]:
        """One batch."""
        work = self.work
        outputs = work.session.run([name for name, _ in work.heads], {work.task["arrays"][0]: np.concatenate(x)})
        rows = answers(work.heads, outputs)
        found = []
        for part in x:
            found.append(rows[: len(part)])
            rows = rows[len(part) :]
        return found

    def unbatch(self, output: list[Any]) -> list[Any]:
        """One entry a request."""
        return output

    def encode_response(self, output: Any) -> Response:
        """JSON by orjson."""
        body = orjson.dumps({"predictions": output}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")


def main() -> None:
    """Serve until told to stop."""
    asked = arguments.parse()
    api = Model(asked.folder, asked.threads, max_batch_size=asked.batch, batch_timeout=asked.delay / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=asked.workers)
    server.run(host="127.0.0.1", port=asked.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
