"""A workload's files, which every contender reads: the bundle, its graph as peers load it, requests, right answers.

task.json       the input, its format and every head: all that a peer's worker knows
model.onnx      the bundle's own fused graph, without the packed output that only Polyhead asks for
model.pt        the network, traced: for TorchServe as its documentation shows it
bundle/         for Polyhead
tokenizer.json  of a text
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from benchmarks.peers import expected
from benchmarks.peers.workloads import Workload
from polyhead.export import assemble
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source
from polyhead.models.arrays import array_specs
from polyhead.models.spec import ImageInput, ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.protocol.images import PixelBudget, decode
from polyhead.serving.request import Query
from polyhead.serving.texts import Texts

__all__ = ["Material", "make"]

SAMPLES = 16  # rows for the export's own gate
SPARE = 8  # more rows than are needed, for some are too near to a decision to be asked about


@dataclass(frozen=True)
class Material:
    """A workload, ready.

    Attributes:
        folder: holds the files.
        bodies: of the requests.
        answers: the right one of each.
        arrays: what the graph takes for each body, `[rows_each, …]` by name: for the bare forward pass.
    """

    workload: Workload
    folder: Path
    bodies: Sequence[bytes]
    answers: Sequence[Any]
    arrays: Sequence[Mapping[str, np.ndarray[Any, Any]]]

    @property
    def bundle(self) -> Path:
        """Polyhead's."""
        return self.folder / "bundle"


def make(workload: Workload, folder: Path) -> Material:
    """Write the files into a new folder."""
    torch.set_num_threads(1)  # rows run one by one, which threads only slow down
    folder.mkdir(parents=True, exist_ok=False)
    spec, network = workload.build()
    count = workload.bodies * workload.rows_each
    rows = workload.rows(count + SPARE + count // 8)
    tokenizers = _tokenizers(workload, spec, folder)
    samples = {next(iter(spec.inputs)): _samples(spec, rows[:SAMPLES])}
    source = Source(network, spec, samples, tokenizers=tokenizers)
    bundle, _ = assemble.export(source, folder / "bundle", ["onnx"], say=lambda _: None)
    _write_onnx(bundle, folder / "model.onnx")
    graph = FusedGraph(network, spec)
    arrays = _arrays(spec, tokenizers, rows)
    _write_torchscript(graph, arrays[:2], folder / "model.pt")
    _write_task(workload, bundle, folder / "task.json")
    with torch.no_grad():
        outputs = [
            dict(zip(spec.head_names, graph(*map(torch.from_numpy, one.values())), strict=False)) for one in arrays
        ]
    merged: dict[str, Tensor] = {head: torch.cat([one[head] for one in outputs]) for head in spec.heads}
    kept = [row for row in range(len(rows)) if expected.decided(spec, merged, row)][:count]
    if len(kept) < count:
        raise RuntimeError(f"{workload.name}: only {len(kept)} of {count} rows are clear decisions: make more rows")
    groups = [kept[start : start + workload.rows_each] for start in range(0, count, workload.rows_each)]
    listed = workload.format == "json" or workload.rows_each > 1
    right = [[expected.answer(spec, merged, row) for row in group] for group in groups]
    return Material(
        workload,
        folder,
        [workload.body([rows[row] for row in group]) for group in groups],
        [{"predictions": group} if listed else group[0] for group in right],
        [_joined([arrays[row] for row in group]) for group in groups],
    )


def made(workload: Workload) -> Material:
    """In a folder that the caller removes."""
    return make(workload, Path(tempfile.mkdtemp(prefix=f"peers-{workload.name}-")) / workload.name)


def _tokenizers(workload: Workload, spec: ModelSpec, folder: Path) -> dict[str, Tokenizer]:
    if workload.tokenizer is None:
        return {}
    shutil.copy(workload.tokenizer(), folder / "tokenizer.json")
    return {
        name: Tokenizer.load(folder / "tokenizer.json", value)
        for name, value in spec.inputs.items()
        if isinstance(value, TextInput)
    }


def _samples(spec: ModelSpec, rows: Sequence[Any]) -> Any:
    value = next(iter(spec.inputs.values()))
    if isinstance(value, ImageInput):
        return np.stack([decode(row, value, PixelBudget(10**8), ()) for row in rows])
    return list(rows) if isinstance(value, TextInput) else np.asarray(rows)


def _arrays(spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Each row alone, as the graph takes it: a text without any padding."""
    name, value = next(iter(spec.inputs.items()))
    if not isinstance(value, TextInput):
        return [{name: _samples(spec, [row])} for row in rows]
    encoded = Texts(spec, tokenizers).encode(Query(len(rows), {name: list(rows)}, ())).inputs[name]
    ids, mask = array_specs(spec)
    return [
        {
            ids: np.asarray([one.ids], dtype=np.int64),  # type: ignore[union-attr]
            mask: np.ones((1, len(one.ids)), dtype=np.int64),  # type: ignore[union-attr]
        }
        for one in encoded
    ]


def _joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _write_onnx(bundle: Bundle, path: Path) -> None:
    graph = bundle.manifest.graph("fused-onnx")
    model = onnx.load(bundle.folder / graph.file)
    heads = set(bundle.spec.heads)
    for output in [one for one in model.graph.output if one.name not in heads]:
        model.graph.output.remove(output)
    onnx.save(model, path)


def _write_torchscript(graph: FusedGraph, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    example = tuple(torch.from_numpy(np.concatenate([array, array])) for array in rows[0].values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and fixes the checks of sizes
        traced = torch.jit.trace(graph, example, check_trace=False)  # type: ignore[no-untyped-call]
    traced.save(str(path))


def _write_task(workload: Workload, bundle: Bundle, path: Path) -> None:
    spec = bundle.spec
    name, value = next(iter(spec.inputs.items()))
    details = value.model_dump(mode="json")
    task = {
        "name": spec.name,
        "format": workload.format,
        "content_type": workload.content_type,
        "input": name,
        "shape": details.get("shape"),
        "size": details.get("size"),
        "max_length": details.get("max_length"),
        "arrays": list(array_specs(spec)),
        "order": list(spec.head_names),
        "heads": {head: one.model_dump(mode="json") for head, one in spec.heads.items()},
    }
    path.write_text(json.dumps(task, indent=2), encoding="utf-8")
