"""`python -m benchmarks.exports`: what exports, and what is refused; with --write, docs/exports.json and the table.

Every cell is one real export of one network, proven by the gate on this machine. Networks have a process each, one
after the other.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import NETWORKS
from benchmarks.pages import insert, number_words
from polyhead.export import assemble, parity
from polyhead.export.compiling import compile_program
from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source
from polyhead.serving.bundle import Bundle
from polyhead.serving.manifest import Format, Precision, Proof
from polyhead.serving.runtimes import base

__all__ = ["COLUMNS", "Cell", "table"]

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "export.md"
RESULTS = ROOT / "docs" / "exports.json"
FORMATS: dict[Format, str] = {"onnx": "ONNX", "torchscript": "TorchScript", "program": ".pt2"}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
APART, COMPILED = "trunk and heads", "AOTInductor"
# The tables, one below the other: their columns, each by the name of its cells.
COLUMNS: tuple[tuple[str, ...], ...] = (
    (*(f"{title} fp32" for title in FORMATS.values()), COMPILED, APART),
    tuple(f"{title} {precision}" for precision in ("fp16", "bf16") for title in FORMATS.values()),
    tuple(f"{title} int8" for title in FORMATS.values()),
)
REASON = 320  # characters of a footnote
EXPORTED, REFUSED, BROKEN = "exported", "refused", "broken"


@dataclass(frozen=True)
class Cell:
    """How one attempt went.

    Attributes:
        state: exported (and gated), refused, or broken by an error that is no refusal.
        seconds: of the whole attempt. Below fp32 the graph in fp32 is written and proven on the way.
        largest: the largest absolute difference to eager, over all heads and cases.
        agreement: the smallest share of clear decisions that are eager's, over the heads.
        reason: why not.
    """

    state: str
    seconds: float
    largest: float = 0.0
    agreement: float = 1.0
    reason: str = ""


def main() -> None:
    """Parse the command line and run. Exit status 1 where an attempt ended in an error that is no refusal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__)
    parser.add_argument("--network", choices=tuple(NETWORKS), action="append", help="default: all")
    parser.add_argument("--column", choices=sum(COLUMNS, ()), action="append", help="default: all")
    parser.add_argument("--compile", action="store_true", help="also compile each network by AOTInductor (minutes)")
    parser.add_argument("--traceback", action="store_true", help="print where every refusal came from")
    parser.add_argument(
        "--write", action="store_true", help=f"write {RESULTS.name}, and the tables of {PAGE.name}; what is not "
        "tried keeps its cells of before"
    )  # fmt: skip
    arguments = parser.parse_args()
    known = results() if arguments.write else {}
    for name in arguments.network or NETWORKS:
        # A process each: what one network took of memory is free again for the next.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            submitted = process.submit(attempts, name, arguments.compile, arguments.traceback, arguments.column or ())
            cells = submitted.result()
        known[name] = known.get(name, {}) | cells
        if arguments.write:
            write(known)
    text = table({name: known.get(name, {}) for name in NETWORKS if arguments.write or name in known})
    print(text)
    if arguments.write:
        insert(PAGE, "exports", text, "Export")
    sys.exit(any(cell.state == BROKEN for cells in known.values() for cell in cells.values()))


def results() -> dict[str, dict[str, Cell]]:
    """The cells written before, by network and column, of the networks that there still are."""
    if not RESULTS.is_file():
        return {}
    content: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]
    return {
        name: {column: Cell(**cell) for column, cell in content[name]["cells"].items()}
        for name in NETWORKS
        if name in content
    }


def write(known: Mapping[str, Mapping[str, Cell]]) -> None:
    """Keep every figure."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "onnx", "onnxruntime-gpu")}
    networks = {
        name: {
            "title": NETWORKS[name].title,
            "about": NETWORKS[name].about,
            "cells": {column: asdict(cell) for column, cell in cells.items()},
        }
        for name, cells in known.items()
    }
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    content = {"machine": f"{platform.machine()}, one thread{device}", "versions": versions, "networks": networks}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def attempts(name: str, compiled: bool, tracebacks: bool, columns: Sequence[str] = ()) -> dict[str, Cell]:
    """Every attempt on one network, or those of some columns, by column; told on stderr."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cells: dict[str, Cell] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        source = NETWORKS[name].source(Path(folder))
        print(f"{name}: made in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        tries: dict[str, Callable[[Path], Proof]] = {
            f"{title} {precision}": _fused(source, form, precision)
            for precision in PRECISIONS
            for form, title in FORMATS.items()
        }
        tries[APART] = lambda out: _apart(source, out)
        if compiled or COMPILED in columns:
            tries[COMPILED] = lambda out: _compiled(source, out)
        for number, (column, attempt) in enumerate(tries.items()):
            if columns and column not in columns:
                continue
            cell = cells[column] = _tried(attempt, Path(folder) / f"bundle-{number}", tracebacks)
            words = f"{cell.largest:.3g} {cell.agreement:.2%}" if cell.state == EXPORTED else cell.reason
            print(f"{name}: {column}: {cell.state} {words} ({cell.seconds:.1f} s)", file=sys.stderr, flush=True)
    return cells


def _tried(attempt: Callable[[Path], Proof], out: Path, tracebacks: bool) -> Cell:
    start = time.perf_counter()
    try:
        found = attempt(out)
    except Exception as error:  # noqa: BLE001 - a cell must say what happened, whatever it was
        seconds = round(time.perf_counter() - start, 1)
        refused = isinstance(error, ExportError)
        if tracebacks or not refused:
            traceback.print_exc()
        words = str(error).strip() or type(error).__name__
        return Cell(REFUSED if refused else BROKEN, seconds, reason=reason(words, (out.parent, ROOT)))
    return Cell(EXPORTED, round(time.perf_counter() - start, 1), found.largest, found.agreement)


def _bundle(
    source: Source, out: Path, form: Format, precision: Precision = "fp32", apart: bool = False
) -> tuple[Bundle, list[parity.Parity]]:
    precisions = () if precision == "fp32" else (precision,)
    return assemble.export(source, out, [form], precisions=precisions, apart=apart)


def _fused(source: Source, form: Format, precision: Precision) -> Callable[[Path], Proof]:
    graph = f"fused-{form}" + ("" if precision == "fp32" else f"-{precision}")
    return lambda out: _proven(_bundle(source, out, form, precision)[1], graph)


def _apart(source: Source, out: Path) -> Proof:
    """Trunk and heads as graphs of their own, one behind the other.

    Raises:
        ExportError: there are none, for the reason that the manifest gives.
    """
    bundle, proofs = _bundle(source, out, "onnx", apart=True)
    if bundle.manifest.unsplit is not None:
        raise ExportError(bundle.manifest.unsplit)
    return _proven(proofs, "trunk-onnx")


def _proven(proofs: Sequence[parity.Parity], graph: str) -> Proof:
    """What the gate saw of a graph, on every device that it was proven on."""
    return parity.proof([proof for proof in proofs if proof.graph == graph])


def _compiled(source: Source, out: Path) -> Proof:
    """The program compiled for this machine, into a cache of its own, and put through the whole gate."""
    bundle, _ = _bundle(source, out, "program")
    os.environ["XDG_CACHE_HOME"] = str(out.parent / "cache")
    compile_program(bundle, "cpu")
    (entry,) = bundle.manifest.graphs
    loaded = base.load("aotinductor", entry, bundle.graph_files(entry), "cpu", 1)
    return parity.proof([parity.check(entry, loaded, FusedGraph(source.network, source.spec), source.batches())])


def reason(message: str, folders: Sequence[Path]) -> str:
    """The first line of a refusal, without this machine's folders, and without the node that a runtime stops at."""
    line = message.splitlines()[0].partition(" (ONNX Runtime refuses ")[0]
    for folder in folders:
        line = line.replace(f"{folder}{os.sep}", "")
    return line if len(line) <= REASON else line[:REASON].rpartition(" ")[0] + " …"


def table(known: Mapping[str, Mapping[str, Cell]]) -> str:
    """The tables, in Markdown, with the reasons for refusals as numbered notes below.

    Args:
        known: cells by network and column. A column that was not tried says so.
    """
    notes: dict[str, int] = {}
    parts = []
    for columns in COLUMNS:
        lines = [f"| network | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
        for name, cells in known.items():
            words = (cell_words(cells.get(column), columns != COLUMNS[0], notes) for column in columns)
            lines.append(f"| {NETWORKS[name].title} | {' | '.join(words)} |")
        parts.append("\n".join(lines))
    legend = (
        "In brackets the seconds of one export, gate and all, in one thread of a shared processor; below fp32 the "
        "graph in fp32 is written and proven on the way. no (n): refused, for reason n."
    )
    networks = [f"- {NETWORKS[name].title}: {NETWORKS[name].about}" for name in known]
    numbered = [f"{number}. {escaped(note)}" for note, number in notes.items()]
    return "\n\n".join([*parts, legend, "\n".join(numbered), "\n".join(networks)])


def cell_words(cell: Cell | None, decided: bool, notes: dict[str, int]) -> str:
    """What stands in a cell.

    Args:
        cell: None where it was not tried.
        decided: whether the share of decisions is told; in fp32 the gate wants all of them.
        notes: reasons by number, which grows.
    """
    if cell is None:
        return "not tried"
    if cell.state != EXPORTED:
        number = notes.setdefault(cell.reason, len(notes) + 1)
        return f"{'no' if cell.state == REFUSED else '**error**'} ({number})"
    share = f", {share_words(cell.agreement)}" if decided else ""
    return f"{number_words(cell.largest)}{share} ({max(1, round(cell.seconds))} s)"


def share_words(share: float) -> str:
    """`99.9 %`, never rounded up."""
    return "100 %" if share == 1 else f"{math.floor(share * 1000) / 10:.1f} %"


def escaped(text: str) -> str:
    """As Markdown that shows it as it is."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|" else char for char in text)


if __name__ == "__main__":
    main()
