"""Graphs, golden samples and manifest into one bundle: whole, proven, or absent."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from polyhead.export import counting, parity, writing
from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.program import capture
from polyhead.export.proving import prove
from polyhead.export.source import Source
from polyhead.export.splitting import Split, Unsplit, split
from polyhead.export.staging import file_entries, publish, require_free, staging, write_manifest
from polyhead.export.writing import FORMATS, Wanted
from polyhead.models.spec import InputSpec, ModelSpec, OneShotHead, TextInput
from polyhead.serving.bundle import GOLDEN, Bundle
from polyhead.serving.golden import Array, Golden, trimmed
from polyhead.serving.manifest import Format, Graph, Manifest, Part, Precision, Proof
from polyhead.serving.protocol import openapi
from polyhead.serving.prototypes import prototypes_file
from polyhead.serving.settings import Settings

__all__ = ["export"]

GOLDEN_ROWS = 16
EXAMPLE_ROWS = 2  # of a capture: more than one, or the exporters fix the batch

Say = Callable[[str], None]


def export(
    source: Source,
    out: Path,
    formats: Sequence[Format] = FORMATS,
    force: bool = False,
    say: Say = lambda _: None,
    *,
    precisions: Sequence[Precision] = (),
    keep: Sequence[str] = (),
    calibration: Mapping[str, Array] | None = None,
    apart: bool = True,
) -> tuple[Bundle, list[parity.Parity]]:
    """Write a bundle, and prove every graph in it.

    Args:
        source: the network, its spec, and rows to try it on.
        out: the bundle's directory; must not exist unless `force`.
        formats: of the graphs.
        force: replace a bundle that is there already, once the new one is whole.
        say: told what is being done.
        precisions: beside fp32, which is always written.
        keep: heads whose own layers stay in fp32 in every precision.
        calibration: rows of every array that int8 graphs of images are calibrated on; the source's samples where None.
        apart: also write trunk and heads as graphs of their own, where ONNX is among the formats.

    Raises:
        ExportError: something does not fit; ParityError: a graph is not eager's. Either way `out` is as it was.
    """
    out = require_free(out, force)
    unknown = sorted(set(keep) - set(source.spec.heads))
    if unknown:
        raise ExportError(f"head {unknown[0]!r} is not in the spec (heads: {', '.join(source.spec.heads)})")
    for name, head in source.spec.heads.items():
        if isinstance(head, OneShotHead) and name not in source.prototypes:
            say(f"head {name!r} knows no class yet, and answers null: polyhead enrol adds classes")
    samples = source.batches()
    wanted = Wanted(formats, precisions, keep, samples[0] if calibration is None else calibration)
    with staging(out) as folder:
        captured = _capture(source, samples[0], wanted, apart, say)
        golden_inputs = trimmed({n: a[:GOLDEN_ROWS] for n, a in samples[0].items()}, captured.graph.arrays)
        golden = Golden(
            golden_inputs,
            parity.eager(captured.graph, golden_inputs),
            {name: texts[:GOLDEN_ROWS] for name, texts in source.texts.items()},
        )
        spec = _write_parts(folder, source)
        (folder / GOLDEN).write_bytes(golden.dump())
        described = json.dumps(openapi.document(spec, Settings()), ensure_ascii=False)
        (folder / openapi.PATH).write_text(described + "\n", encoding="utf-8")
        (folder / "graphs").mkdir()
        written = writing.write(folder, captured.graph, captured.program, captured.split, captured.example, wanted, say)
        proofs, entries = prove(folder, captured.graph, written, samples, say)
        (folder / "parity.json").write_text(json.dumps([asdict(p) for p in proofs], indent=2) + "\n", encoding="utf-8")
        _write_manifest(folder, source, spec, written.graphs, entries, captured)
        return publish(folder, out), proofs


@dataclass(frozen=True)
class _Captured:
    """A network, ready to be written.

    Attributes:
        program: None where torch.export refuses the network.
        split: None where there are no trunk and head graphs, for the reason `unsplit`.
    """

    graph: FusedGraph
    example: list[Tensor]
    program: fx.GraphModule | None
    split: Split | None
    unsplit: str | None
    parts: dict[str, Part] = field(default_factory=dict)


def _capture(source: Source, samples: Mapping[str, Array], wanted: Wanted, apart: bool, say: Say) -> _Captured:
    graph = FusedGraph(source.network.cpu(), source.spec)
    example = [torch.from_numpy(array[:EXAMPLE_ROWS].copy()) for array in samples.values()]
    rows = {name: array[:EXAMPLE_ROWS] for name, array in samples.items()}
    parity.require_repeatable(graph, rows)
    say("capturing the network")
    try:
        program = capture(graph, example)
    except ExportError as error:
        if tuple(wanted.formats) != ("torchscript",) or wanted.precisions:
            raise
        say(f"{error}; TorchScript alone was asked for, so the network itself is traced")
        return _Captured(graph, example, None, None, "torch.export refuses the network")
    heads = source.spec.head_names
    parts = counting.parts(program, heads, [tensor[:1] for tensor in example])
    unsplit, pieces = None, None
    try:
        pieces = split(program, graph.input_names, heads)
    except Unsplit as error:
        unsplit = str(error)
        say(f"no graphs of trunk and heads: {error}")
    if pieces is not None and not (apart and "onnx" in wanted.formats):
        unsplit, pieces = "they were not asked for", None
    return _Captured(graph, example, program, pieces, unsplit, parts)


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
    folder: Path,
    source: Source,
    spec: ModelSpec,
    graphs: Sequence[Graph],
    proofs: Mapping[str, Proof],
    captured: _Captured,
) -> None:
    packages = ["polyhead", "torch", "onnx", "onnxruntime-gpu", *(["tokenizers"] if source.tokenizers else [])]
    versions = {name: importlib.metadata.version(name) for name in packages}
    manifest = Manifest(
        spec=spec,
        graphs=tuple(graphs),
        files=file_entries(folder),
        parity=dict(proofs),
        parts=captured.parts,
        unsplit=captured.unsplit,
        versions=versions | {"numpy": np.__version__},
        metrics={head: dict(values) for head, values in source.metrics.items()},
    )
    write_manifest(folder, manifest)
