"""The batched hot path: all that a worker does for a batch, beside the bare forward pass of the same batch.

The worker gets the octets that TorchServe's front end sends and makes those that it sends back: reads the message,
decodes, collates, runs one forward pass, answers, encodes, writes. Only the system calls of the socket are left out.
The bare forward is the same loaded graph, called with the finished array. Both run in turn, in one process, on one
machine; only their ratio is reported.
"""

from __future__ import annotations

import io
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it reads its version
    from ts.context import Context

from polyhead.export import assemble
from polyhead.export.source import Source, random_samples
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.mlp import MLP
from polyhead.models.trunks.resnet import resnet18
from polyhead.serving.bundle import Bundle
from polyhead.serving.golden import Array
from polyhead.serving.request import HttpRequest
from polyhead.serving.runtimes import base
from polyhead.serving.settings import available_cores
from polyhead.serving.torchserve.fastpath.blocks import END, field
from polyhead.serving.torchserve.fastpath.reader import Reader
from polyhead.serving.torchserve.fastpath.writer import Writer
from polyhead.serving.torchserve.handler import PolyheadHandler

__all__ = ["BATCHES", "WORKLOADS", "Timing", "Workload", "measure"]

BATCHES = (1, 8, 32, 64)


@dataclass(frozen=True)
class Workload:
    """A model and the requests it gets."""

    name: str
    description: str
    build: Callable[[], tuple[ModelSpec, MultiTaskNetwork]]
    bodies: Callable[[int], list[bytearray]]
    content_type: str


@dataclass(frozen=True)
class Timing:
    """One batch size: seconds, and the handler's over the bare forward's, as the median over rounds."""

    batch: int
    bare: float
    handler: float
    ratio: float
    low: float  # the smallest ratio of a round
    high: float


def resnet(size: int) -> Workload:
    """ResNet-18 with four heads on JPEG images of `size` pixels square."""

    def build() -> tuple[ModelSpec, MultiTaskNetwork]:
        labels = [f"class {i}" for i in range(100)]
        heads: dict[str, Any] = {
            "category": {"kind": "classification", "labels": labels},
            "tags": {"kind": "multilabel", "labels": labels[:20]},
            "quality": {"kind": "regression"},
            "embedding": {"kind": "embedding", "dim": 128, "normalize": True},
        }
        image = {"kind": "image", "size": [size, size], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        spec = ModelSpec.parse({"name": "resnet18", "version": "1", "inputs": {"image": image}, "heads": heads})
        return spec, network(spec, resnet18())

    def bodies(count: int) -> list[bytearray]:
        generator = np.random.default_rng(0)
        result = []
        for _ in range(count):  # smooth, as photographs are: noise would make the decoder the subject
            coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            result.append(bytearray(buffer.getvalue()))
        return result

    return Workload("resnet18", f"ResNet-18, 4 heads, JPEG {size} x {size}", build, bodies, "image/jpeg")


def mlp() -> Workload:
    """A small MLP with three heads on 768 floats: the case in which everything but the forward pass shows."""

    def build() -> tuple[ModelSpec, MultiTaskNetwork]:
        heads = {
            "intent": {"kind": "classification", "labels": [f"intent {i}" for i in range(16)]},
            "tags": {"kind": "multilabel", "labels": [f"tag {i}" for i in range(8)]},
            "value": {"kind": "regression"},
        }
        inputs = {"features": {"kind": "tensor", "shape": [768]}}
        spec = ModelSpec.parse({"name": "mlp", "version": "1", "inputs": inputs, "heads": heads})
        return spec, network(spec, MLP(768, (256, 256)))

    def bodies(count: int) -> list[bytearray]:
        rows = np.random.default_rng(0).standard_normal((count, 768)).astype("<f4")
        return [bytearray(row.tobytes()) for row in rows]

    return Workload("mlp", "MLP 768-256-256, 3 heads, 768 floats in binary", build, bodies, "application/octet-stream")


WORKLOADS = {"resnet18": resnet(224), "mlp": mlp()}


def network(spec: ModelSpec, trunk: Any) -> MultiTaskNetwork:
    """A seeded network with the default head of every kind."""
    torch.manual_seed(0)
    return MultiTaskNetwork(trunk, {n: build_head(h, trunk.out_features) for n, h in spec.heads.items()}).eval()


def measure(
    workload: Workload, folder: Path, batches: Sequence[int] = BATCHES, rounds: int = 9, runtime: str = "onnxruntime"
) -> list[Timing]:
    """Export the workload's model into a folder, and time handler and bare forward in turn, for each batch size."""
    spec, model = workload.build()
    formats = [base.FORMATS[runtime]]
    bundle, _ = assemble.export(Source(model, spec, random_samples(spec)), folder / workload.name, formats, apart=False)
    handler = _handler(bundle, runtime)
    return [_time(handler, workload, batch, rounds) for batch in batches]


def _handler(bundle: Bundle, runtime: str) -> PolyheadHandler:
    settings = {"runtime": runtime, "device": "cpu", "threads": available_cores()}
    context = Context(bundle.spec.name, str(bundle.folder), {}, 64, None, "0.12.0")
    context.model_yaml_config = {"polyhead": {"bundle": ".", "settings": settings}}
    handler = PolyheadHandler()
    handler.initialize(context)
    return handler


def _time(handler: PolyheadHandler, workload: Workload, batch: int, rounds: int) -> Timing:
    bodies = workload.bodies(batch)
    connection = Connection(message(bodies, workload.content_type))
    reader, writer = Reader(connection), Writer()  # type: ignore[arg-type]
    assert handler.responder is not None
    engine = handler.responder.engine
    arrays = _collated(handler, workload, bodies)

    def bare() -> None:
        engine.runtime.run(arrays, [engine.graph.packed.output])

    def whole() -> None:
        connection.rewind()
        before = engine.forwards
        _, received = reader.message()
        responses = handler.answer(received.requests)
        sent = writer.message(received.ids, responses, [None] * batch)
        assert engine.forwards == before + 1, "more than one forward pass for one batch"
        assert len(sent) > batch
        assert all(response.status == 200 for response in responses), responses[0].body

    repeats = _repeats(bare)
    whole()
    pairs = [(_seconds(bare, repeats), _seconds(whole, repeats)) for _ in range(rounds)]
    ratios = [handled / alone for alone, handled in pairs]
    return Timing(
        batch,
        statistics.median(alone for alone, _ in pairs),
        statistics.median(handled for _, handled in pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def _collated(handler: PolyheadHandler, workload: Workload, bodies: Sequence[bytearray]) -> list[Array]:
    """The arrays of the batch, kept from a real pass: what the bare forward is given."""
    assert handler.responder is not None
    engine = handler.responder.engine
    kept: list[list[Array]] = []
    original = engine.runtime

    class Tap:
        """Passes a forward on, and keeps its inputs."""

        name, device = original.name, original.device

        def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
            kept.append([np.array(array) for array in inputs])
            return original.run(inputs, outputs)

    engine.runtime = Tap()
    try:
        handler.answer([HttpRequest(body, workload.content_type) for body in bodies])
    finally:
        engine.runtime = original
    assert len(kept) == 1, f"{len(kept)} forward passes for one batch"
    return kept[0]


def message(bodies: Sequence[bytes | bytearray], content_type: str) -> bytes:
    """A batch as TorchServe's front end sends it to a worker."""
    parts = [b"I"]
    for number, body in enumerate(bodies):
        parts.append(field(f"{number:036d}".encode()))
        headers = {"Host": "127.0.0.1:8080", "User-Agent": "bench", "Accept": "*/*", "Content-Type": content_type}
        headers |= {"content-length": str(len(body)), "explain": "False"}
        parts += [field(text.encode()) for pair in headers.items() for text in pair]
        parts += [END, field(b"body"), field(content_type.encode()), field(bytes(body)), END]
    return b"".join([*parts, END])


class Connection:
    """A socket that brings the same message again and again."""

    def __init__(self, octets: bytes) -> None:
        self._octets, self._place = memoryview(octets), 0

    def rewind(self) -> None:
        """Bring it once more."""
        self._place = 0

    def recv_into(self, view: memoryview) -> int:
        """As a socket's."""
        part = self._octets[self._place : self._place + len(view)]
        view[: len(part)] = part
        self._place += len(part)
        return len(part)


def _repeats(function: Callable[[], None]) -> int:
    """Calls that make about 30 ms, so that a round is longer than the clock's noise."""
    function()
    start = time.perf_counter()
    function()
    return max(1, round(0.03 / (time.perf_counter() - start)))


def _seconds(function: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats
