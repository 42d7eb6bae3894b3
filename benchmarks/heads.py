"""`python -m benchmarks.heads`: what merging and packing linear heads brings; with --write, docs/heads.* and the table.

K linear heads of ten labels on a feature of 768, behind a small trunk, written three ways from one program:

- apart: every head a matrix product and an output of its own, all of them fetched, as exporters leave it;
- packed: the same products, side by side in one output, which alone is fetched;
- merged: one matrix product for all heads, which is the packed output, as `polyhead export` writes it.

All three run in turn, in one process and one thread, through the runtimes that serve. Ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from benchmarks.pages import insert, number_words
from polyhead.export import merging, onnx, torchscript
from polyhead.export.graphs import PACKED, FusedGraph
from polyhead.export.parity import TOLERANCE
from polyhead.export.program import capture, dimensions, exported
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.mlp import MLP
from polyhead.serving.golden import Array, difference
from polyhead.serving.manifest import Graph, Packed
from polyhead.serving.runtimes import base

__all__ = ["BATCHES", "HEADS", "Exactness", "Timing", "measure", "table"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEADS = (1, 4, 16, 64)
BATCHES = (1, 8, 64)
WIDTH, LABELS = 768, 10
RUNTIMES = {"onnxruntime": "ONNX Runtime", "torchscript": "TorchScript"}
ROUND = 0.02  # seconds of one contender in one round, at least


@dataclass(frozen=True)
class Timing:
    """One number of heads at one batch size, in one runtime.

    Attributes:
        apart, packed, merged: seconds of one forward pass and the copies out of it; medians over rounds.
        packing, merging: apart over packed and apart over merged, medians over rounds: how many times as fast.
        spread: the least and the greatest apart over merged of a round.
    """

    runtime: str
    heads: int
    batch: int
    apart: float
    packed: float
    merged: float
    packing: float
    merging: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Exactness:
    """One number of heads in one runtime: what merging and packing do to the numbers.

    Attributes:
        packed: whether the columns of the packed output are the heads' own outputs, bit for bit.
        merged: the largest difference of any head, merged, to eager PyTorch, not merged.
        apart: that of the heads left apart, in the same runtime.
    """

    runtime: str
    heads: int
    packed: bool
    merged: float
    apart: float


@dataclass(frozen=True)
class _Contender:
    """A loaded graph and the outputs that are fetched of it."""

    runtime: base.Runtime
    outputs: tuple[str, ...]
    packed: Packed | None

    def run(self, rows: Array) -> None:
        """One forward pass and the copies out of it."""
        self.runtime.run([rows], self.outputs)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--write", action="store_true", help="write docs/heads.json, .png and the table of export.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timings: list[Timing] = []
    exact: list[Exactness] = []
    for heads in HEADS:
        found, exactness = measure(heads, BATCHES, arguments.rounds)
        timings += found
        exact += exactness
    text = table(timings, exact)
    print(text)
    if arguments.write:
        write(timings, exact)
        insert(DOCS / "export.md", "heads", text, "Export")


def measure(heads: int, batches: Sequence[int], rounds: int) -> tuple[list[Timing], list[Exactness]]:
    """So many heads, every batch size, every runtime."""
    graph, example = network(heads)
    program = capture(graph, [example])
    timings, exact = [], []
    for runtime in RUNTIMES:
        contenders = _contenders(runtime, graph, program, example)
        exact.append(_exactness(runtime, graph, contenders))
        timings += [_timing(runtime, heads, batch, contenders, rounds) for batch in batches]
    return timings, exact


def network(heads: int) -> tuple[FusedGraph, Tensor]:
    """A trunk 768 -> 768 with ReLU and so many linear heads, and an example for it."""
    labels = [f"label {index}" for index in range(LABELS)]
    kinds = {f"head{index:02d}": {"kind": "classification", "labels": labels} for index in range(heads)}
    inputs = {"x": {"kind": "tensor", "shape": [WIDTH]}}
    spec = ModelSpec.parse({"name": "heads", "version": "1", "inputs": inputs, "heads": kinds})
    torch.manual_seed(0)
    modules = {name: build_head(head, WIDTH) for name, head in spec.heads.items()}
    return FusedGraph(MultiTaskNetwork(MLP(WIDTH, (WIDTH,)), modules), spec), torch.randn(2, WIDTH)


def _contenders(runtime: str, graph: FusedGraph, program: fx.GraphModule, example: Tensor) -> dict[str, _Contender]:
    heads, rows = graph.spec.head_names, graph.row_heads
    packed = merging.fuse(program, heads, rows, PACKED, merge=False)
    merged = merging.fuse(program, heads, rows, PACKED)
    return {
        "apart": _loaded(runtime, graph, program, None, example),
        "packed": _loaded(runtime, graph, packed.module, packed.packed, example),
        "merged": _loaded(runtime, graph, merged.module, merged.packed, example),
    }


def _loaded(
    runtime: str, graph: FusedGraph, module: fx.GraphModule, packed: Packed | None, example: Tensor
) -> _Contender:
    outputs = (*graph.spec.head_names, *([] if packed is None else [PACKED]))
    if runtime == "onnxruntime":
        program = exported(module, [example], dimensions(graph.arrays.values()))
        data = onnx.write(program, graph.input_names, outputs).SerializeToString()
    else:
        data = torchscript.write(module)
    entry = Graph(
        id="fused",
        file="graphs/fused",
        format=base.FORMATS[runtime],
        inputs=graph.input_names,
        outputs=outputs,
        packed=packed,
        tolerance=TOLERANCE["fp32"],
    )
    loaded = base.load(runtime, entry, {entry.file: data}, "cpu", 1)
    return _Contender(loaded, graph.spec.head_names if packed is None else (PACKED,), packed)


def _exactness(runtime: str, graph: FusedGraph, contenders: Mapping[str, _Contender]) -> Exactness:
    rows = _rows(max(BATCHES))
    names = graph.spec.head_names
    with torch.inference_mode():
        eager = dict(zip(names, (output.numpy() for output in graph(torch.from_numpy(rows))), strict=True))
    apart = dict(zip(names, contenders["apart"].runtime.run([rows], names), strict=True))
    same = True
    for contender in (contenders["packed"], contenders["merged"]):
        assert contender.packed is not None
        found = dict(zip((*names, PACKED), contender.runtime.run([rows], (*names, PACKED)), strict=True))
        for name, (start, stop) in contender.packed.columns.items():
            same &= np.array_equal(found[PACKED][:, start:stop], found[name])
    return Exactness(
        runtime,
        len(names),
        packed=same,
        merged=max(difference(found[name], eager[name]) for name in names),  # the loop ends with the merged one
        apart=max(difference(apart[name], eager[name]) for name in names),
    )


def _rows(batch: int) -> Array:
    return np.random.default_rng(0).standard_normal((batch, WIDTH)).astype(np.float32)


def _timing(runtime: str, heads: int, batch: int, contenders: Mapping[str, _Contender], rounds: int) -> Timing:
    rows = _rows(batch)
    repeats = {name: _repeats(contender.run, rows) for name, contender in contenders.items()}
    names = [*contenders]
    taken = []
    for index in range(rounds):
        turn = names[index % len(names) :] + names[: index % len(names)]  # each is first as often as the others
        taken.append({name: _seconds(contenders[name].run, rows, repeats[name]) for name in turn})
    merged = [times["apart"] / times["merged"] for times in taken]
    return Timing(
        runtime,
        heads,
        batch,
        apart=statistics.median(times["apart"] for times in taken),
        packed=statistics.median(times["packed"] for times in taken),
        merged=statistics.median(times["merged"] for times in taken),
        packing=statistics.median(times["apart"] / times["packed"] for times in taken),
        merging=statistics.median(merged),
        spread=(min(merged), max(merged)),
    )


def _repeats(run: Callable[[Array], None], rows: Array) -> int:
    """Calls that fill a round, of a graph that is warm by then."""
    _seconds(run, rows, 5)
    return max(3, round(ROUND / _seconds(run, rows, 3)))


def _seconds(run: Callable[[Array], None], rows: Array, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run(rows)
    return (time.perf_counter() - start) / repeats


def table(timings: Sequence[Timing], exact: Sequence[Exactness]) -> str:
    """Markdown: of every runtime and number of heads, the ratios by batch, and what becomes of the numbers."""
    batches = sorted({timing.batch for timing in timings})
    lines = [
        f"| runtime | heads | {' | '.join(f'batch {batch}' for batch in batches)} | bit for bit | to eager |",
        f"| --- | ---: |{' ---: |' * len(batches)} --- | ---: |",
    ]
    ratios = {(t.runtime, t.heads, t.batch): f"**{t.merging:.2f}** ({t.packing:.2f})" for t in timings}
    for found in sorted(exact, key=lambda found: (list(RUNTIMES).index(found.runtime), found.heads)):
        cells = [ratios[found.runtime, found.heads, batch] for batch in batches]
        same = "yes" if found.packed else "**no**"
        lines.append(
            f"| {RUNTIMES[found.runtime]} | {found.heads} | {' | '.join(cells)} | {same} "
            f"| {number_words(found.merged)} ({number_words(found.apart)}) |"
        )
    words = (
        "Time of a forward pass that returns every head on its own, over that of the graph **merged and packed** "
        "(packed, not merged), the copies out of it included: how many times as fast. Bit for bit: every head's "
        "columns of the packed output are that head's own output. To eager: the largest difference of any head, "
        "merged, to eager PyTorch, not merged (of the heads left apart). One thread of a shared processor, medians "
        "over rounds in which all three run in turn; every figure is in [heads.json](heads.json)."
    )
    return "\n".join([*lines, "", words, "", "![how many times as fast, over the number of heads](heads.png)"])


def write(timings: Sequence[Timing], exact: Sequence[Exactness]) -> None:
    """Keep every figure, and plot the ratios."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "onnxruntime-gpu")}
    content = {
        "machine": f"{platform.machine()}, one thread",
        "versions": versions,
        "timings": [dataclasses.asdict(timing) for timing in timings],
        "exactness": [dataclasses.asdict(found) for found in exact],
    }
    (DOCS / "heads.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (DOCS / "heads.png").write_bytes(plot(timings))


def plot(timings: Sequence[Timing]) -> bytes:
    """A PNG: the ratios over the number of heads, a panel for each runtime."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(RUNTIMES), figsize=(10, 4.5), sharey=True, layout="constrained")
    for panel, (runtime, title) in zip(panels, RUNTIMES.items(), strict=True):
        for color, batch in zip(("tab:blue", "tab:orange", "tab:green"), BATCHES, strict=True):
            found = [t for t in timings if t.runtime == runtime and t.batch == batch]
            heads = [t.heads for t in found]
            panel.plot(heads, [t.merging for t in found], "o-", color=color, label=f"batch {batch}: merged and packed")
            panel.plot(heads, [t.packing for t in found], ".--", color=color, label=f"batch {batch}: packed alone")
        panel.axhline(1.0, color="0.6", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set_xticks(HEADS, [str(count) for count in HEADS])
        panel.set(title=title, xlabel="linear heads of 10 labels on 768 features")
    panels[0].set(ylabel="times as fast as every head on its own")
    panels[0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
