"""One contender in a process of its own: load, prove the answers, then time forward passes when told to.

Told by one JSON object a line on standard input, and answers by one a line on standard output:

    {"bundle", "digest", "contender", "network", "threads"}  ->  {} or {"refused": why, "wrong": whether it answered}
    {"batch", "seconds"}                                     ->  {"passes": [seconds, …]} or {"refused", "wrong"}

It ends when its input does.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import orjson

from polyhead.export.timing.contenders import Contender, NetworkPlace
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen
from polyhead.serving.engine import Engine
from polyhead.serving.errors import BundleError, GoldenMismatch
from polyhead.serving.golden import Array, Tolerance, fault
from polyhead.serving.manifest import Manifest

__all__ = ["Subject", "main"]

WARM = 3  # passes before a batch size is first timed; TorchScript rewrites itself in the first two
LEAST, MOST = 3, 20_000  # passes of one visit


@dataclass(frozen=True)
class Subject:
    """A loaded contender and what its answers are held against.

    Attributes:
        run: arrays by name in, raw outputs by head out.
        tolerance: on the contender's device.
        agreement: the least share of clear decisions that must be eager's.
    """

    bundle: Bundle
    run: Callable[[dict[str, Array]], Mapping[str, Array]]
    tolerance: Tolerance
    agreement: float

    @classmethod
    def load(cls, job: Mapping[str, Any]) -> Subject:
        """Load what a job names, and prove it on the golden samples.

        Raises:
            PolyheadError: it cannot be loaded; GoldenMismatch: its answers are not the recorded ones.
        """
        bundle = Bundle.open(Path(job["bundle"]))
        if bundle.digest != job["digest"]:
            raise BundleError(f"bundle {bundle.title} was changed while it was timed: start again")
        contender = Contender(**job["contender"])
        if contender.graph is not None:
            return cls._of_graph(bundle, contender, job["threads"])
        from polyhead.export.timing.eager import EagerNetwork

        place = NetworkPlace(**{**job["network"], **_paths(job["network"])})
        network = EagerNetwork(place, bundle, contender.device, job["threads"])
        tolerance = _of_eager(bundle.manifest)
        made = cls(bundle, network.run, tolerance.on(contender.device), 1.0)
        made.prove(bundle.golden().rows)
        return made

    @classmethod
    def _of_graph(cls, bundle: Bundle, contender: Contender, threads: int) -> Subject:
        graph = bundle.manifest.graph(str(contender.graph))
        engine = Engine.of(bundle, Chosen(graph, contender.runtime, "timed"), contender.device, threads)
        engine.replay_golden()
        # Of the few golden rows a share of decisions proves nothing, as in Engine.replay_golden.
        agreement = 1.0 if graph.agreement == 1.0 else 0.0
        return cls(bundle, engine.run, graph.tolerance.on(engine.runtime.device), agreement)

    def rows(self, batch: int) -> dict[str, Array]:
        """So many golden rows, repeated in turn where there are fewer: `[batch, …]` by array."""
        golden = self.bundle.golden()
        index = np.arange(batch) % golden.rows
        return {name: np.ascontiguousarray(array[index]) for name, array in golden.inputs.items()}

    def prove(self, batch: int) -> None:
        """Run the golden rows as a batch of this size, and hold every head against eager's recorded outputs.

        Raises:
            GoldenMismatch: naming the head.
        """
        golden, outputs = self.bundle.golden(), self.run(self.rows(batch))
        index = np.arange(batch) % golden.rows
        for head, spec in self.bundle.spec.heads.items():
            wrong = fault(spec, outputs[head], golden.outputs[head][index], self.tolerance, self.agreement)
            if wrong is not None:
                raise GoldenMismatch(
                    f"head {head!r} does not reproduce the golden samples in a batch of {batch}: {wrong}"
                )

    def timed(self, batch: int, seconds: float, warm: int) -> list[float]:
        """Seconds of each forward pass of golden rows, for about so long.

        Args:
            batch: rows of a pass.
            seconds: to go on for; a few passes are made in any case.
            warm: passes before, which do not count.
        """
        rows = self.rows(batch)
        for _ in range(warm):
            self.run(rows)
        passes: list[float] = []
        begin = time.perf_counter()
        while len(passes) < LEAST or (time.perf_counter() - begin < seconds and len(passes) < MOST):
            start = time.perf_counter()
            self.run(rows)
            passes.append(time.perf_counter() - start)
        return passes


def _paths(network: Mapping[str, str | None]) -> dict[str, Path | None]:
    """What JSON holds as text."""
    return {name: None if (text := network[name]) is None else Path(text) for name in ("run", "weights", "spec")}


def _of_eager(manifest: Manifest) -> Tolerance:
    """What the eager network is held to: the most that is allowed to a graph in fp32, whose arithmetic is its own."""
    fused = [graph for graph in manifest.graphs if graph.part == "fused"]
    return min(fused, key=lambda graph: graph.precision != "fp32").tolerance


def main() -> None:
    """Serve the process that started this one."""
    answers = _own_output()
    try:
        subject = Subject.load(orjson.loads(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001 - whatever it is, the starting process says it
        _answer(answers, _refusal(error))
        return
    gc.collect()
    gc.freeze()
    _answer(answers, {})
    seen: set[int] = set()
    for line in sys.stdin:
        asked = orjson.loads(line)
        batch = int(asked["batch"])
        try:
            if batch not in seen:
                for _ in range(WARM):
                    subject.prove(batch)
                seen.add(batch)
            _answer(answers, {"passes": subject.timed(batch, float(asked["seconds"]), 1)})
        except Exception as error:  # noqa: BLE001 - as above: memory that is not there, a batch that it cannot run
            _answer(answers, _refusal(error))


def _own_output() -> TextIO:
    """Standard output for answers alone: what a library prints goes where errors go."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, content: Mapping[str, Any]) -> None:
    answers.write(orjson.dumps(content).decode() + "\n")
    answers.flush()


def _refusal(error: Exception) -> dict[str, Any]:
    from polyhead.models.run import RunError
    from polyhead.models.spec import SpecError
    from polyhead.serving.errors import PolyheadError

    known = isinstance(error, PolyheadError | SpecError | RunError)
    text = " ".join(str(error).split()) or "no message"
    return {
        "refused": text if known else f"{type(error).__name__}: {text:.300}",
        "wrong": isinstance(error, GoldenMismatch),
    }


if __name__ == "__main__":
    main()
