"""Ray Serve: one deployment, batches by serve.batch, one replica."""

from __future__ import annotations

import os
import signal
import threading

import arguments
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

ASKED = arguments.parse()


@serve.deployment(
    num_replicas=ASKED.workers,
    max_ongoing_requests=1000,
    ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": {"PYTHONPATH": os.path.dirname(__file__)}}},  # noqa: PTH120
)
class Model:
    """Bodies in, answers out."""

    def __init__(self, folder: str, threads: int) -> None:
        from pathlib import Path

        from work import Work

        self.work = Work(Path(folder), threads)

    @serve.batch(max_batch_size=ASKED.batch, batch_wait_timeout_s=ASKED.delay / 1000)
    async def answer(self, bodies: list[bytes]) -> list[bytes]:
        """One batch."""
        return self.work.answer(bodies)

    async def __call__(self, request: Request) -> Response:
        """One request."""
        return Response(await self.answer(await request.body()), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": ASKED.port})
    serve.run(Model.bind(str(ASKED.folder), ASKED.threads), name="peer", route_prefix="/")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    stopping.wait()
    serve.shutdown()
    ray.shutdown()
