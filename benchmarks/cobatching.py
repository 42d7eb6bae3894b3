"""`python -m benchmarks.cobatching`: what it brings to run a dear head on the rows that ask for it, in one batch.

A batch of 64 requests, in process, of which a share wants a head as dear as the trunk. The same batch, in turn:

- everyone: one pass of the fused graph, every head for every row;
- planned: trunk and cheap heads once, the dear head on the rows that ask, from the trunk's features;
- by head-set: one batch for those who want the dear head and one for the others, each with a trunk pass of its own, as
  a server answers that batches requests of equal heads.

Beside it: 16 heads against one on the same trunk. Ratios are medians over rounds; absolute times are one machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.arrays import array_specs
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.models.trunks.text import TextConfig, TextTrunk, pretrained
from polyhead.serving import plan
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.golden import Array
from polyhead.serving.runtimes import base

__all__ = ["WORKLOADS", "Contest", "compare", "heads_ratio"]

BATCH = 64
SHARES = (0.0, 0.1, 0.5, 1.0)
LABELS = [f"label {index}" for index in range(10)]
CLASSIFICATION = {"kind": "classification", "labels": LABELS}


class Mlp(nn.Module):
    """A trunk of 768-1024-1024, three linear heads, and one with hidden layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(768, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU())
        self.near = nn.ModuleDict({f"near{index}": nn.Linear(1024, len(LABELS)) for index in range(3)})
        hidden = nn.Sequential(nn.Linear(1024, 880), nn.ReLU(), nn.Linear(880, 1024), nn.ReLU())
        self.dear = nn.Sequential(hidden, nn.Linear(1024, len(LABELS)))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`[batch, 768]` to `[batch, 10]` by head."""
        features = self.trunk(x)
        return {"dear": self.dear(features)} | {name: head(features) for name, head in self.near.items()}


class Text(nn.Module):
    """MiniLM with linear heads on the sentence; where asked, a head with six encoder layers of its own."""

    def __init__(self, near: int, dear: bool) -> None:
        super().__init__()
        config = TextConfig.load(pretrained() / "config.json")
        self.trunk = TextTrunk.from_directory(pretrained())
        self.near = nn.ModuleDict({f"near{i}": nn.Linear(config.hidden_size, len(LABELS)) for i in range(near)})
        self.layers = TextTrunk(config).encoder["layer"] if dear else None
        self.dear = nn.Linear(config.hidden_size, len(LABELS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """`[batch, tokens]` to `[batch, 10]` by head."""
        features = self.trunk(input_ids, attention_mask)
        outputs = {name: head(features["pooled"]) for name, head in self.near.items()}
        if self.layers is None:
            return outputs
        tokens, mask = features["tokens"], (attention_mask != 0)[:, None, None, :]
        for layer in self.layers:  # type: ignore[union-attr]
            tokens = layer(tokens, mask)
        return {**outputs, "dear": self.dear(tokens[:, 0])}


@dataclass(frozen=True)
class Workload:
    """A network with a head called `dear`, and rows for it."""

    about: str
    network: Callable[[], nn.Module]
    inputs: Mapping[str, object]
    heads: tuple[str, ...]


TEXT = {"text": {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 128}}
NEAR = ("near0", "near1", "near2")
WORKLOADS = {
    "mlp": Workload(
        "MLP 768-1024-1024, 3 linear heads, one as dear as the trunk",
        Mlp, {"x": {"kind": "tensor", "shape": [768]}}, (*NEAR, "dear"),
    ),
    "minilm": Workload(
        "MiniLM, 32 tokens, 3 linear heads, one with six encoder layers",
        lambda: Text(3, True), TEXT, (*NEAR, "dear"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Contest:
    """Medians for one share of rows that want the dear head.

    Attributes:
        share: of the rows.
        milliseconds: of a batch, by contender.
        everyone, by_set: the time of that contender over the planned one's, median over rounds.
        low, high: the smallest and the largest `everyone` of a round.
    """

    share: float
    milliseconds: Mapping[str, float]
    everyone: float
    by_set: float
    low: float
    high: float


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cobatching", description=__doc__)
    parser.add_argument("--workload", choices=[*WORKLOADS, "heads"], action="append", help="default: all")
    parser.add_argument("--bundle", type=Path, help="a bundle of yours in place of the workloads, on its golden rows")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, found = base.resolve_device(arguments.device), {}
    if arguments.bundle:
        bundle = Bundle.open(arguments.bundle)
        print(_told(bundle, *compare(bundle, _golden(bundle), device, arguments.threads, arguments.rounds)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workload in arguments.workload or (*WORKLOADS, "heads"):
            if workload == "heads":
                ratio = heads_ratio(folder, device, arguments.threads, arguments.rounds)
                print(f"16 heads over one head, MiniLM, {BATCH} rows of 32 tokens: {ratio:.3f}\n")
                found["heads"] = ratio
                continue
            made = _exported(WORKLOADS[workload], folder / workload)
            decided, contests = compare(made, _rows(made), device, arguments.threads, arguments.rounds)
            print(f"{WORKLOADS[workload].about}\n{_told(made, decided, contests)}")
            found[workload] = {"plan": asdict(decided), "contests": [asdict(contest) for contest in contests]}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _exported(workload: Workload, out: Path) -> Bundle:
    torch.manual_seed(0)
    data = {
        "name": out.name,
        "version": "1",
        "inputs": workload.inputs,
        "heads": dict.fromkeys(workload.heads, CLASSIFICATION),
    }
    spec = ModelSpec.parse(data)
    data = (pretrained() / "tokenizer.json").read_bytes() if "text" in spec.inputs else b""
    tokenizers = {name: Tokenizer(data, value) for name, value in spec.inputs.items() if isinstance(value, TextInput)}
    source = Source(workload.network().eval(), spec, random_samples(spec, tokenizers=tokenizers), tokenizers=tokenizers)
    return export(source, out, ["onnx"])[0]


def _rows(bundle: Bundle) -> dict[str, Array]:
    """A batch: random numbers, or texts of 32 tokens."""
    generator = np.random.default_rng(0)
    inputs = {}
    for name, array in array_specs(bundle.spec).items():
        match array.role:
            case "ids":
                inputs[name] = generator.integers(1000, 30000, (BATCH, 32))
            case "mask":
                inputs[name] = np.ones((BATCH, 32), np.int64)
            case _:
                shape = (BATCH, *(int(size) for size in array.shape))
                inputs[name] = generator.standard_normal(shape).astype(np.float32)
    return inputs


def _golden(bundle: Bundle) -> dict[str, Array]:
    golden = bundle.golden()
    return _subset(golden.inputs, np.arange(BATCH) % golden.rows)


def _told(bundle: Bundle, decided: plan.Plan, contests: list[Contest]) -> str:
    return f"{bundle.title}: {', '.join(decided.apart)} apart: {decided.why}\n\n{table(contests)}\n"


def compare(
    bundle: Bundle, inputs: Mapping[str, Array], device: str, threads: int, rounds: int
) -> tuple[plan.Plan, list[Contest]]:
    """Let a bundle's plan, the fused graph and one batch per head-set answer the same requests, in turn."""
    graph = bundle.manifest.graph("fused-onnx")
    decided, split = plan.load(bundle, Chosen(graph, "onnxruntime", ""), device, threads)
    if not isinstance(split, Cobatching):
        raise SystemExit(f"{bundle.title}: nothing runs apart: {decided.why}")
    fused = base.load("onnxruntime", graph, bundle.graph_files(graph), device, threads)
    return decided, [_contest(bundle, inputs, fused, split, share, rounds) for share in SHARES]


def _contest(
    bundle: Bundle,
    inputs: Mapping[str, Array],
    fused: base.Runtime,
    split: Cobatching,
    share: float,
    rounds: int,
) -> Contest:
    generator, graph = np.random.default_rng(1), split.fused
    near: dict[str, Array | None] = {head: None for head in bundle.spec.heads if head not in split.apart}
    times: dict[str, list[float]] = {"everyone": [], "planned": [], "by head-set": []}
    packed = [] if graph.packed is None else [graph.packed.output, *graph.packed.columns]
    names = [*packed[:1], *(head for head in bundle.spec.heads if head not in packed and (share or head in near))]
    for number in range(rounds + 2):
        asked = np.sort(generator.permutation(BATCH)[: round(share * BATCH)])
        others = np.setdiff1d(np.arange(BATCH), asked)
        wanted = {**near, **dict.fromkeys(split.apart, asked)}
        dear, rest = (_subset(inputs, index) for index in (asked, others))
        ordered, few = ([given[name] for name in graph.inputs] for given in (inputs, dear))
        start = time.perf_counter()
        fused.run(ordered, names)
        everyone = time.perf_counter()
        split.run(inputs, wanted)
        planned = time.perf_counter()
        if len(others):
            split.run(rest, near)
        if len(asked):
            fused.run(few, names)
        end = time.perf_counter()
        if number < 2:
            continue  # warming up
        for name, seconds in zip(times, (everyone - start, planned - everyone, end - planned), strict=True):
            times[name].append(seconds)
    ratios = [one / other for one, other in zip(times["everyone"], times["planned"], strict=True)]
    sets = [one / other for one, other in zip(times["by head-set"], times["planned"], strict=True)]
    milliseconds = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return Contest(share, milliseconds, statistics.median(ratios), statistics.median(sets), min(ratios), max(ratios))


def _subset(inputs: Mapping[str, Array], index: Array) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array[index]) for name, array in inputs.items()}


def heads_ratio(folder: Path, device: str, threads: int, rounds: int) -> float:
    """The time of MiniLM with 16 heads over its time with one, median over rounds."""
    runtimes = []
    for count in (1, 16):
        names = tuple(f"near{index}" for index in range(count))
        workload = Workload("", lambda count=count: Text(count, False), TEXT, names)  # type: ignore[misc]
        bundle = _exported(workload, folder / f"heads{count}")
        graph = bundle.manifest.graph("fused-onnx")
        runtimes.append(base.load("onnxruntime", graph, bundle.graph_files(graph), device, threads))
    rows = list(_rows(bundle).values())
    ratios = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        runtimes[0].run(rows, ["polyhead_packed"])
        one = time.perf_counter()
        runtimes[1].run(rows, ["polyhead_packed"])
        if number >= 2:
            ratios.append((time.perf_counter() - one) / (one - start))
    return statistics.median(ratios)


def table(contests: list[Contest]) -> str:
    """In Markdown."""
    lines = [
        "| rows that ask | everyone, ms | planned, ms | by head-set, ms | everyone / planned | by head-set / planned |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for c in contests:
        times = " | ".join(f"{c.milliseconds[name]:.2f}" for name in ("everyone", "planned", "by head-set"))
        spread = f"**{c.everyone:.2f}** ({c.low:.2f} to {c.high:.2f})"
        lines.append(f"| {c.share:.0%} | {times} | {spread} | {c.by_set:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
