"""`python -m benchmarks`: measure the hot path; with --write, keep table, JSON and plot under docs/."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import tempfile
from pathlib import Path

from benchmarks.hot_path import WORKLOADS, Timing, measure
from polyhead.serving.settings import available_cores

DOCS = Path(__file__).resolve().parent.parent / "docs" / "latency"


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), action="append", help="default: all")
    parser.add_argument("--runtime", choices=("onnxruntime", "torchscript"), action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"write the report to {DOCS.name}.md, .json and .png")
    arguments = parser.parse_args()
    results: dict[str, list[Timing]] = {}
    for name in arguments.workload or sorted(WORKLOADS):
        for runtime in arguments.runtime or ("onnxruntime", "torchscript"):
            with tempfile.TemporaryDirectory() as folder:
                timings = measure(WORKLOADS[name], Path(folder), rounds=arguments.rounds, runtime=runtime)
            results[f"{WORKLOADS[name].description}; {runtime}"] = timings
            print(table(f"{WORKLOADS[name].description}; {runtime}", timings), flush=True)
    if arguments.write:
        write(results)


def table(title: str, timings: list[Timing]) -> str:
    """A Markdown table."""
    lines = [f"### {title}", "", "| batch | bare forward, ms | handler, ms | handler / bare | spread over rounds |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: |")
    for t in timings:
        spread = f"{t.low:.2f} - {t.high:.2f}"
        lines.append(f"| {t.batch} | {t.bare * 1e3:.3f} | {t.handler * 1e3:.3f} | **{t.ratio:.2f}** | {spread} |")
    return "\n".join(lines) + "\n"


def write(results: dict[str, list[Timing]]) -> None:
    """Keep the report."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime-gpu"))
    versions = f"Python {platform.python_version()}, {packages}"
    machine = f"{platform.machine()}, {available_cores()} cores, {versions}"
    parts = [
        "# The batched hot path",
        "",
        "What TorchServe's worker spends in the handler for one batch (decode, collate, one forward pass, answers,",
        "bytes), over the bare forward pass of the same batch in the same process. Medians; the two run in turn.",
        f"Absolute times belong to one shared machine ({machine})",
        "and one hour; the ratios are what to compare.",
        "",
        "Repeat it with `make bench`; this page was written by `.venv/bin/python -m benchmarks --write`.",
        "",
        "![handler over bare forward](latency.png)",
        "",
        *(table(title, timings) for title, timings in results.items()),
    ]
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.with_suffix(".md").write_text("\n".join(parts), encoding="utf-8")
    content = {title: [dataclasses.asdict(t) for t in timings] for title, timings in results.items()}
    DOCS.with_suffix(".json").write_text(json.dumps({"machine": machine, "results": content}, indent=2) + "\n")
    plot(results)


def plot(results: dict[str, list[Timing]]) -> None:
    """The ratios over the batch size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for title, timings in results.items():
        axes.plot([t.batch for t in timings], [t.ratio for t in timings], marker="o", label=title)
    axes.axhline(1.0, color="0.6", linewidth=1, label="the bare forward pass")
    axes.axhline(1.25, color="tab:red", linewidth=1, linestyle="--", label="aim for ResNet-18 at batch 32: 1.25")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_yticks([1, 1.25, 2, 4, 8, 16], ["1", "1.25", "2", "4", "8", "16"])
    batches = sorted({t.batch for timings in results.values() for t in timings})
    axes.set_xticks(batches, [str(b) for b in batches])
    axes.set(xlabel="requests in the batch", ylabel="handler / bare forward (log)")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    figure.savefig(DOCS.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
