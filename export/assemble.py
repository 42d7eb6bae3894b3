"""Graphs, golden samples and manifest into one bundle: whole, proven, or absent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyhead.export import onnx, parity, torchscript
from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source
from polyhead.serving.bundle import GOLDEN, MANIFEST, Bundle, FileEntry, Graph, Manifest
from polyhead.serving.golden import Golden
from polyhead.serving.runtimes import base

__all__ = ["FORMATS", "export"]

GOLDEN_ROWS = 16
EXAMPLE_ROWS = 2  # of a trace: more than one, or the exporters fix the batch

Writer = Callable[[FusedGraph, Sequence[Tensor]], bytes]

# Format: file suffix, writer, and the runtime that serves it and so must prove it.
FORMATS: dict[str, tuple[str, Writer, str]] = {
    "onnx": ("onnx", onnx.write, "onnxruntime"),
    "torchscript": ("ts", torchscript.write, "torchscript"),
}

Say = Callable[[str], None]


def export(
    source: Source,
    out: Path,
    formats: Sequence[str] = tuple(FORMATS),
    force: bool = False,
    say: Say = lambda _: None,
) -> tuple[Bundle, list[parity.Parity]]:
    """Write a bundle, and prove every graph in it.

    Args:
        source: the network, its spec, and rows to try it on.
        out: the bundle's directory; must not exist unless `force`.
        formats: keys of `FORMATS`.
        force: replace a bundle that is there already, once the new one is whole.
        say: told what is being done.

    Raises:
        ExportError: something does not fit; ParityError: a graph is not eager's. Either way `out` is as it was.
    """
    out = out.resolve()  # a link is followed, so that what it names is replaced and not the link
    if out.exists() and not force:
        raise ExportError(f"{out} exists already: give another --out, or --force to replace it")
    if out.exists() and not (out / MANIFEST).is_file():
        raise ExportError(f"{out} exists and is no bundle: --force replaces bundles only")
    threads = torch.get_num_threads()
    with _staging(out) as folder:
        graph = FusedGraph(source.network.cpu(), source.spec)
        inputs = {name: torch.from_numpy(array[:EXAMPLE_ROWS].copy()) for name, array in source.samples.items()}
        packed = graph.packed(graph.check(inputs))
        golden_inputs = {name: array[:GOLDEN_ROWS] for name, array in source.samples.items()}
        golden = Golden(golden_inputs, parity.eager(graph, golden_inputs))
        (folder / GOLDEN).write_bytes(golden.dump())
        (folder / "graphs").mkdir()
        graphs: list[Graph] = []
        proofs: list[parity.Parity] = []
        for name in formats:
            suffix, write, runtime = FORMATS[name]
            entry = Graph(
                id=f"fused-{name}",
                file=f"graphs/fused.{suffix}",
                format=name,
                inputs=graph.input_names,
                outputs=graph.output_names,
                packed=packed,
            )
            say(f"writing {entry.file}")
            data = write(graph, list(inputs.values()))
            (folder / entry.file).write_bytes(data)
            for device in _devices():
                say(f"proving {entry.file} against eager, head by head, on {device}")
                loaded = base.load(runtime, entry, data, device, threads)
                proofs.append(parity.check(entry, loaded, graph, source.samples))
            graphs.append(entry)
        (folder / "parity.json").write_text(json.dumps([asdict(p) for p in proofs], indent=2) + "\n", encoding="utf-8")
        _write_manifest(folder, source, graphs, proofs)
        bundle = Bundle.open(folder)
        _publish(folder, out)
    return Bundle(out, bundle.manifest, bundle.digest), proofs


def _devices() -> list[str]:
    """Where graphs are proven: the CPU always, the first GPU where there is one."""
    return ["cpu"] if base.resolve_device("auto") == "cpu" else ["cpu", "cuda:0"]


def _write_manifest(folder: Path, source: Source, graphs: list[Graph], proofs: list[parity.Parity]) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    largest: dict[str, float] = {}
    for proof in proofs:
        largest[proof.graph] = max(largest.get(proof.graph, 0.0), proof.largest)
    versions = {name: importlib.metadata.version(name) for name in ("polyhead", "torch", "onnx", "onnxruntime-gpu")}
    manifest = Manifest(
        spec=source.spec,
        graphs=tuple(graphs),
        files=files,
        tolerance=parity.FP32,
        parity=largest,
        versions=versions | {"numpy": np.__version__},
        metrics={head: dict(values) for head, values in source.metrics.items()},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system, removed whatever happens."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, out: Path) -> None:
    """Rename into place. A bundle that was there is moved aside first, back where that fails, removed last."""
    if not out.exists():
        folder.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        out.rename(aside / "bundle")
        try:
            folder.rename(out)
        except OSError:
            (aside / "bundle").rename(out)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
