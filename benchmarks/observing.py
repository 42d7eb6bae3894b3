"""`python -m benchmarks.observing`: what counting costs on the hot path, for the case in which it shows most.

The responder answers the same batch with and without an observer, in turn, in one process; only the ratio counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.hot_path import Workload, mlp
from polyhead.export import assemble
from polyhead.export.source import Source, random_samples
from polyhead.serving import metrics
from polyhead.serving.engine import Engine
from polyhead.serving.record import Record
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

__all__ = ["Cost", "measure"]


@dataclass(frozen=True)
class Cost:
    """Of one batch.

    Attributes:
        batch: requests.
        without, seconds: the responder's time for a batch, without and with an observer.
        ratio: of the two medians.
        counting: seconds for a batch of the observer alone, with its share of what it counts later.
    """

    batch: int
    without: float
    seconds: float
    ratio: float
    counting: float


def measure(workload: Workload, folder: Path, batch: int = 64, pairs: int = 2000) -> Cost:
    """Export the workload's model into a folder, and answer one batch again and again, observed every other time."""
    spec, model = workload.build()
    bundle, _ = assemble.export(Source(model, spec, random_samples(spec)), folder / "bundle", ["onnx"], apart=False)
    engine = Engine.load(bundle, "onnxruntime", "cpu", threads=1)
    observe = metrics.observer(bundle, engine, folder)
    assert observe is not None
    requests = [HttpRequest(body, workload.content_type) for body in workload.bodies(batch)]
    plain, observed = (Responder(engine, Settings(), observe=each) for each in (None, observe))

    def seconds(responder: Responder) -> float:
        start = perf_counter()
        responder.respond(requests)
        return perf_counter() - start

    for _ in range(50):
        seconds(plain)
        seconds(observed)
    timings = []
    for number in range(pairs):  # who comes first changes: neither always finds the other's caches
        if number % 2:
            alone = seconds(plain)
            timings.append((alone, seconds(observed)))
        else:
            counted = seconds(observed)
            timings.append((seconds(plain), counted))
    records: list[Record] = []
    Responder(engine, Settings(), observe=records.append).respond(requests)
    start = perf_counter()
    for _ in range(pairs):
        observe(records[0])
    counting = (perf_counter() - start) / pairs
    alone, counted = (statistics.median(times) for times in zip(*timings, strict=True))
    return Cost(batch, alone, counted, counted / alone, counting)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observing", description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(measure(mlp(), Path(folder), arguments.batch))), flush=True)


if __name__ == "__main__":
    main()
