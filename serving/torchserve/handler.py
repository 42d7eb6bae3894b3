"""The TorchServe handler: a thin adapter between TorchServe's context and the responder.

TorchServe looks in an archive's handler file for the only class that is defined there, and hides an ImportError in that
file behind its own default handler. So an archive holds a file that derives from `PolyheadHandler`, and nothing else.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import orjson

from polyhead.serving import logs
from polyhead.serving.bundle import Bundle
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.engine import Engine
from polyhead.serving.errors import (
    BundleError,
    InternalError,
    PayloadTooLarge,
    PolyheadError,
)
from polyhead.serving.loading import load_engine
from polyhead.serving.metrics.observer import observer
from polyhead.serving.passes import pass_tokens
from polyhead.serving.protocol.json import encode_error
from polyhead.serving.request import HttpResponse
from polyhead.serving.responder import Responder
from polyhead.serving.runtimes import base
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.busy import Busy
from polyhead.serving.torchserve.fastpath import install
from polyhead.serving.torchserve.incoming import Incoming, incoming, tags
from polyhead.serving.tracing import TAG_HEADER

__all__ = ["HANDLER_FILE", "HANDLER_SOURCE", "PolyheadHandler"]

# The file in an archive. It holds no code of ours: an archive must not carry a copy that grows old.
HANDLER_FILE = "polyhead_handler.py"
HANDLER_SOURCE = '''"""Polyhead's handler, from the installed package."""
from polyhead.serving.torchserve.handler import PolyheadHandler
class Handler(PolyheadHandler): """The one class that TorchServe looks for: it must be defined in this file."""
'''

# TorchServe's own default of `max_response_size`, for a TorchServe that we did not configure.
MAX_RESPONSE = 6_553_500
# What a message to TorchServe holds besides each answer's body: ids, headers, lengths.
OVERHEAD = 2_000

logger = logging.getLogger(__name__)


class PolyheadHandler:
    """One model in one worker process."""

    def __init__(self) -> None:
        self.responder: Responder | None = None
        self._why = ""
        self._headers: tuple[tuple[str, str], ...] = ()
        self._max_response = MAX_RESPONSE
        self.fast_path = False
        self._busy: AbstractContextManager[None] = nullcontext()

    def initialize(self, context: Any) -> None:
        """Open and verify the bundle, load its graph, replay the golden samples, warm up.

        The model's configuration (`model-config.yaml`) names the bundle, the settings, and the file to report to. A
        failure is reported there in one line, then raised: TorchServe ends this worker.
        """
        config = (context.model_yaml_config or {}).get("polyhead", {})
        report = config.get("report")
        try:
            self.responder = self._load(context, config)
            if self.fast_path:
                install.install(self.answer, self.handle, self._headers)
        except Exception as error:
            message = str(error) if isinstance(error, PolyheadError) else f"{type(error).__name__}: {error}"
            _report(report, {"ok": False, "error": message})
            raise RuntimeError(message) from error
        self._max_response = int(config.get("max_response_size", MAX_RESPONSE))
        if "busy" in config:
            self._busy = Busy(Path(config["busy"]))
        # Every request would log two lines through a pipe to Java.
        logging.getLogger().setLevel(logging.WARNING)
        gc.collect()
        gc.freeze()
        _report(report, {"ok": True, **self._about(self.responder.engine)})

    def _load(self, context: Any, config: Mapping[str, Any]) -> Responder:
        properties = context.system_properties
        settings = Settings.parse(dict(config.get("settings", {})), "model-config.yaml: polyhead.settings")
        bundle = Bundle.open(Path(properties["model_dir"], config.get("bundle", "bundle")).resolve())
        expected = config.get("digest", bundle.digest)
        if bundle.digest != expected:
            raise BundleError(
                f"bundle {bundle.title} was changed since the server started ({bundle.digest[:12]}, "
                f"it started with {expected[:12]}): start the server again"
            )
        logs.configure(settings.log_format, bundle.title)
        self.fast_path = settings.fast_path and install.in_worker()
        device = settings.device
        if device in ("auto", "cuda") and properties.get("gpu_id") is not None:
            device = f"cuda:{properties['gpu_id']}"
        loaded = load_engine(
            bundle, settings.runtime, device, settings.precision, settings.threads_per_worker(), settings.apart
        )
        self._why, engine = loaded.chosen.why, loaded.engine
        engine.warm_up([settings.max_batch_size, 1])
        padding = pass_tokens(engine)
        engine.reset_counts()
        self._headers = (("X-Polyhead-Model", bundle.title), ("X-Polyhead-Bundle", bundle.digest[:12]))
        counts = config.get("metrics")
        observe = observer(bundle, engine, None if counts is None else Path(counts))
        return Responder(engine, settings, observe, padding)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer one batch of TorchServe's, handed over by its own worker.

        Args:
            data: per request, the body by name.
            context: TorchServe's, with the request headers; statuses and response headers are set on it.

        Returns:
            One body per request.
        """
        requests = [incoming(entry, context.get_all_request_header(index)) for index, entry in enumerate(data)]
        responses = self.answer(requests)
        for index, (response, tag) in enumerate(zip(responses, tags(requests), strict=True)):
            context.set_response_status(response.status, response.phrase, index)
            context.set_response_content_type(index, response.content_type)
            for name, value in (*self._headers, *response.headers):
                context.set_response_header(index, name, value)
            if tag is not None:
                context.set_response_header(index, TAG_HEADER, tag)
        return [response.body for response in responses]

    def answer(self, requests: Sequence[Incoming]) -> list[HttpResponse]:
        """One response per request of a batch, in their order. It raises nothing: TorchServe would fail the batch."""
        with self._busy:
            return self._answer(requests)

    def _answer(self, requests: Sequence[Incoming]) -> list[HttpResponse]:
        assert self.responder is not None
        try:
            asked = [request for request in requests if request is not None]
            responses = self.responder.respond(asked) if asked else []
            if len(asked) < len(requests):
                answers = iter(responses)
                responses = [self._describe() if request is None else next(answers) for request in requests]
        except Exception:  # TorchServe would answer 503 to the whole batch, without a body of ours
            logger.exception("a batch of %d requests failed", len(requests))
            error = InternalError("the server failed on this batch and has logged it: send the request again")
            responses = [HttpResponse(error.status, error.phrase, encode_error(error))] * len(requests)
        return _bounded(responses, self._max_response)

    def _describe(self) -> HttpResponse:
        """The model and its counts."""
        assert self.responder is not None
        engine, bundle = self.responder.engine, self.responder.engine.bundle
        content = {
            "model": bundle.title,
            "bundle": bundle.digest[:12],
            **self._about(engine),
            "fast_path": self.fast_path,
            "pid": os.getpid(),
            "spec": bundle.spec.model_dump(mode="json"),
            "counts": {
                "batches": self.responder.batches,
                "requests": self.responder.requests,
                "failures": self.responder.failures,
                "forwards": engine.forwards,
                "rows": engine.rows,
            },
            "head_rows": engine.head_rows,
        }
        return HttpResponse(200, "OK", orjson.dumps(content))

    def _about(self, engine: Engine) -> dict[str, Any]:
        """What answers, and why that: graph, runtime, device, and the heads that run apart."""
        runtime = engine.runtime
        about = {"graph": engine.graph.id, "runtime": runtime.name, "device": runtime.device, "why": self._why}
        mode = base.mode(runtime.base if isinstance(runtime, Cobatching) else runtime)
        return {**about, "mode": mode, "apart": list(engine.apart), "why_apart": engine.plan.why}


def _bounded(responses: list[HttpResponse], limit: int) -> list[HttpResponse]:
    """The responses, those refused that are too large for the batch: for one, TorchServe would fail every neighbour.

    Where all of them together are too large, each may take an equal share of the limit.
    """
    if sum([len(response.body) for response in responses]) + OVERHEAD * len(responses) <= limit:
        return responses
    share = limit // len(responses) - OVERHEAD
    bounded = []
    for response in responses:
        size = len(response.body)
        if size > share:
            error = PayloadTooLarge(
                f"the answer has {size} bytes, there is room for {share}: ask for fewer rows or heads"
            )
            response = HttpResponse(error.status, error.phrase, encode_error(error))
        bounded.append(response)
    return bounded


def _report(path: str | None, content: Mapping[str, Any]) -> None:
    """Tell the launcher how loading went; without one, the log is the place."""
    if path is None:
        if not content["ok"]:
            sys.stderr.write(f"polyhead: {content['error']}\n")
        return
    target = Path(path).with_suffix(f".{os.getpid()}.json")
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(target)
