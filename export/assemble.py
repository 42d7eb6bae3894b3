"""Graphs, golden samples and manifest into one bundle: whole, proven, or absent."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyhead.export import onnx, parity, torchscript
from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source
from polyhead.export.staging import file_entries, publish, require_free, staging, write_manifest
from polyhead.models.spec import InputSpec, ModelSpec, OneShotHead, TextInput
from polyhead.serving.bundle import GOLDEN, Bundle, Graph, Manifest
from polyhead.serving.golden import Golden, trimmed
from polyhead.serving.prototypes import prototypes_file
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
    out = require_free(out, force)
    for name, head in source.spec.heads.items():
        if isinstance(head, OneShotHead) and name not in source.prototypes:
            say(f"head {name!r} knows no class yet, and answers null: polyhead enrol adds classes")
    threads = torch.get_num_threads()
    with staging(out) as folder:
        graph = FusedGraph(source.network.cpu(), source.spec)
        samples = source.arrays()
        inputs = {name: torch.from_numpy(array[:EXAMPLE_ROWS].copy()) for name, array in samples.items()}
        packed = graph.packed(graph.check(inputs))
        golden_inputs = trimmed({name: array[:GOLDEN_ROWS] for name, array in samples.items()}, graph.arrays)
        golden_texts = {name: texts[:GOLDEN_ROWS] for name, texts in source.texts.items()}
        golden = Golden(golden_inputs, parity.eager(graph, golden_inputs), golden_texts)
        spec = _write_parts(folder, source)
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
                proofs.append(parity.check(entry, loaded, graph, samples))
            graphs.append(entry)
        (folder / "parity.json").write_text(json.dumps([asdict(p) for p in proofs], indent=2) + "\n", encoding="utf-8")
        _write_manifest(folder, source, spec, graphs, proofs)
        return publish(folder, out), proofs


def _devices() -> list[str]:
    """Where graphs are proven: the CPU always, the first GPU where there is one."""
    return ["cpu"] if base.resolve_device("auto") == "cpu" else ["cpu", "cuda:0"]


def _write_parts(folder: Path, source: Source) -> ModelSpec:
    """Tokenizers and enrolled classes, as files; returns the spec that names the bundle's own."""
    inputs: dict[str, InputSpec] = {}
    for name, value in source.spec.inputs.items():
        inputs[name] = value
        if isinstance(value, TextInput):
            file = f"preprocess/{name}/tokenizer.json"
            inputs[name] = value.model_copy(update={"tokenizer": file})
            (folder / file).parent.mkdir(parents=True)
            (folder / file).write_bytes(source.tokenizers[name].data)
    for head, enrolled in source.prototypes.items():
        declared = source.spec.heads.get(head)
        if not isinstance(declared, OneShotHead) or enrolled.vectors.shape[1:] != (declared.dim,):
            raise ExportError(
                f"prototypes of {head!r} have vectors {list(enrolled.vectors.shape)}: "
                "give them for a oneshot head of the spec, [classes, dim]"
            )
        path = folder / prototypes_file(head)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(enrolled.dump())
    return source.spec.model_copy(update={"inputs": inputs})


def _write_manifest(
    folder: Path, source: Source, spec: ModelSpec, graphs: list[Graph], proofs: list[parity.Parity]
) -> None:
    largest: dict[str, float] = {}
    for proof in proofs:
        largest[proof.graph] = max(largest.get(proof.graph, 0.0), proof.largest)
    packages = ["polyhead", "torch", "onnx", "onnxruntime-gpu", *(["tokenizers"] if source.tokenizers else [])]
    versions = {name: importlib.metadata.version(name) for name in packages}
    manifest = Manifest(
        spec=spec,
        graphs=tuple(graphs),
        files=file_entries(folder),
        tolerance=parity.FP32,
        parity=largest,
        versions=versions | {"numpy": np.__version__},
        metrics={head: dict(values) for head, values in source.metrics.items()},
    )
    write_manifest(folder, manifest)
