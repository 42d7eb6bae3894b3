"""One model version in an actor of Ray Serve: the server's engine and responder, and Ray's batching before them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve

from polyhead.serving import logs
from polyhead.serving.bundle import Bundle
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.errors import BundleError, GoldenMismatch
from polyhead.serving.golden import Golden, fault
from polyhead.serving.loading import load_engine
from polyhead.serving.metrics.observer import observer
from polyhead.serving.passes import pass_tokens
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.runtimes import base
from polyhead.serving.settings import Settings
from polyhead.serving.tracing import TAG_HEADER, client_id

__all__ = ["LOG", "METRICS", "MODEL", "Asked", "Replica", "Told"]

# What passes between actors. Plain values: no class of ours is pickled, so the two ends may be of different versions.
Asked = tuple[bytes, str, dict[str, str]]  # body, media type, headers by name in lower case
LOG, METRICS = "log", "metrics"  # in the launcher's folder
Told = tuple[int, str, bytes, dict[str, str]]  # status, media type, body, headers
MODEL = "model"  # the deployment of each model's application


class Replica:
    """One model version, loaded and proven: it counts as started once it has answered its golden samples.

    Args:
        bundle: its folder, on the machine where the replica runs.
        digest: that the launcher opened.
        settings: as plain data.
        device: `cpu`, or `cuda:0` where Ray gave it a GPU, which is the only one it sees.
        threads: of one forward pass.
        folder: of the launcher, if that runs on this machine: metrics are counted there, and the log is written to a
            pipe that the launcher reads; else None, and the log is Ray's.

    Raises:
        BundleError: the bundle is not there, or not the one that was opened.
        GoldenMismatch: its answers are not the recorded ones.
    """

    def __init__(
        self, bundle: str, digest: str, settings: Mapping[str, Any], device: str, threads: int, folder: str | None
    ) -> None:
        own = Settings.parse(dict(settings), "settings")
        opened = Bundle.open(Path(bundle))
        if opened.digest != digest:
            raise BundleError(
                f"bundle {opened.title} on this machine is another ({opened.digest[:12]}) than was opened for serving "
                f"({digest[:12]}): put the same bundle at the same path on every machine of the cluster"
            )
        if folder is not None:
            logging.getLogger().addHandler(pipe(Path(folder, LOG), opened.title))
        logs.configure(own.log_format, opened.title)
        loaded = load_engine(opened, own.runtime, device, own.precision, threads, own.apart)
        self._why, self._engine = loaded.chosen.why, loaded.engine
        self._engine.warm_up([own.max_batch_size, 1])
        padding = pass_tokens(self._engine)
        self._engine.reset_counts()
        observe = observer(opened, self._engine, None if folder is None else Path(folder, METRICS))
        self._responder = Responder(self._engine, own, observe, padding)
        self._golden: Golden = opened.golden()
        self._checks = 0
        self._headers = {"X-Polyhead-Model": opened.title, "X-Polyhead-Bundle": opened.digest[:12]}
        self.answer.set_max_batch_size(own.max_batch_size)  # type: ignore[attr-defined]
        self.answer.set_batch_wait_timeout_s(own.max_batch_delay / 1000)  # type: ignore[attr-defined]
        # One thread: a batch at a time, while the event loop goes on taking requests in for the next one.
        self._forward = ThreadPoolExecutor(1, "forward")
        gc.collect()
        gc.freeze()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)  # the settings' values are set when it is loaded
    async def answer(self, batch: list[Asked]) -> list[Told]:
        """One response per request of a batch that Ray collected, in their order."""
        return await asyncio.get_running_loop().run_in_executor(self._forward, self._respond, batch)

    def _respond(self, batch: list[Asked]) -> list[Told]:
        requests = [HttpRequest(body, media_type, headers) for body, media_type, headers in batch]
        told = []
        for request, response in zip(requests, self._responder.respond(requests), strict=True):
            tag = client_id(request.headers)
            own = {} if tag is None else {TAG_HEADER: tag}
            headers = {**self._headers, **dict(response.headers), **own}
            told.append((response.status, response.content_type, response.body, headers))
        return told

    async def check_health(self) -> None:
        """Ray asks at intervals, and replaces a replica that raises: one golden sample after the other, by the engine.

        Raises:
            GoldenMismatch: an answer is no longer the recorded one.
        """
        await asyncio.get_running_loop().run_in_executor(self._forward, self._prove)

    def _prove(self) -> None:
        engine, golden, row = self._engine, self._golden, self._checks % self._golden.rows
        self._checks += 1
        forwards, rows = engine.forwards, engine.rows
        outputs = engine.run({name: np.ascontiguousarray(of[row : row + 1]) for name, of in golden.inputs.items()})
        engine.forwards, engine.rows = forwards, rows  # nobody's request
        tolerance = engine.graph.tolerance.on(engine.runtime.device)
        agreement = 1.0 if engine.graph.agreement == 1.0 else 0.0  # of one row, a share of decisions proves nothing
        for head, spec in engine.bundle.spec.heads.items():
            wrong = fault(spec, outputs[head], golden.outputs[head][row : row + 1], tolerance, agreement)
            if wrong is not None:
                raise GoldenMismatch(
                    f"model {engine.bundle.title}, process {os.getpid()}: head {head!r} does not reproduce golden "
                    f"sample {row} any more: {wrong}"
                )

    def about(self) -> dict[str, Any]:
        """What answers, and why that; the counts of this replica."""
        runtime, responder = self._engine.runtime, self._responder
        return {
            "graph": self._engine.graph.id,
            "precision": self._engine.graph.precision,
            "runtime": runtime.name,
            "device": runtime.device,
            "why": self._why,
            "mode": base.mode(runtime.base if isinstance(runtime, Cobatching) else runtime),
            "apart": list(self._engine.apart),
            "pid": os.getpid(),
            "counts": {
                "batches": responder.batches,
                "requests": responder.requests,
                "failures": responder.failures,
                "forwards": self._engine.forwards,
                "rows": self._engine.rows,
            },
        }


def pipe(path: Path, title: str) -> logging.Handler:
    """A handler that writes lines to the launcher, each of which says what model it is about."""
    handler = logging.StreamHandler(path.open("a", buffering=1, encoding="utf-8"))
    handler.setFormatter(logging.Formatter(f"{title}: %(message)s"))
    return handler
