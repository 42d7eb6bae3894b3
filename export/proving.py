"""Every graph of a bundle through the gate, before anybody may have the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from polyhead.export import divergence, parity
from polyhead.export.errors import ExportError, ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.export.writing import Written
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph, Proof
from polyhead.serving.runtimes import base
from polyhead.serving.split import SplitRuntime

__all__ = ["prove"]

Say = Callable[[str], None]


def prove(
    folder: Path, graph: FusedGraph, written: Written, samples: Sequence[Mapping[str, Array]], say: Say
) -> tuple[list[parity.Parity], dict[str, Proof]]:
    """Every graph on each device that it is meant for and that is here; else on the CPU.

    Args:
        folder: the bundle's.
        graph: the eager network.
        written: what is in the folder.
        samples: rows, in groups of equal shape.
        say: told what is being done.

    Returns:
        Every figure, and each graph's entry in the manifest.

    Raises:
        ParityError: naming head, graph, runtime, case and error, and the first operation that diverges.
    """
    proofs: list[parity.Parity] = []
    entries: dict[str, Proof] = {}
    for entry in written.graphs:
        if entry.part == "fused":
            found = [_prove(folder, entry, device, graph, written, samples, say) for device in _devices(entry)]
            proofs += found
            entries[entry.id] = parity.proof(found)
    pieces = {entry.id: entry for entry in written.graphs if entry.part != "fused"}
    if pieces:
        found = [_prove_split(folder, pieces, device, graph, samples, say) for device in _devices(pieces["trunk-onnx"])]
        proofs += found
        entries |= {name: _part(entry, found) for name, entry in pieces.items()}
    return proofs, entries


def _prove(
    folder: Path,
    entry: Graph,
    device: str,
    graph: FusedGraph,
    written: Written,
    samples: Sequence[Mapping[str, Array]],
    say: Say,
) -> parity.Parity:
    say(f"proving {entry.file} against eager, head by head, on {device}")
    files = _files(folder, entry)
    runtime = next(name for name in base.AUTO if base.FORMATS[name] == entry.format)
    try:
        loaded = base.load(runtime, entry, files, device, torch.get_num_threads())
    except RuntimeUnavailable as error:
        if device.partition(":")[0] in entry.meant:
            raise
        raise ExportError(
            f"{entry.file} is meant for {' and '.join(entry.meant)}, which this machine has not, and cannot be proven "
            f"on the CPU: export it where there is one, or leave out {entry.precision} or --format {entry.format} "
            f"({error})"
        ) from error
    try:
        return parity.check(entry, loaded, graph, samples)
    except ParityError as error:
        if entry.precision not in written.stages:
            raise
        say("looking for the first operation that diverges")
        where = divergence.locate(entry, files, written.stages[entry.precision], graph, samples)
        raise ParityError(f"{error}{where}") from error


def _prove_split(
    folder: Path,
    pieces: Mapping[str, Graph],
    device: str,
    graph: FusedGraph,
    samples: Sequence[Mapping[str, Array]],
    say: Say,
) -> parity.Parity:
    """Trunk and heads, one behind the other, as one graph."""
    say(f"proving trunk and heads, one behind the other, on {device}")
    threads = torch.get_num_threads()
    loaded = {
        name: (entry, base.load("onnxruntime", entry, _files(folder, entry), device, threads))
        for name, entry in pieces.items()
    }
    heads = {str(entry.head): loaded[name] for name, entry in pieces.items() if entry.head is not None}
    runtime = SplitRuntime(graph.input_names, loaded["trunk-onnx"], heads)
    changes = {"inputs": graph.input_names, "outputs": graph.spec.head_names}
    return parity.check(pieces["trunk-onnx"].model_copy(update=changes), runtime, graph, samples)


def _part(entry: Graph, found: Sequence[parity.Parity]) -> Proof:
    """The proof of the trunk is that of all heads; of a head, its own."""
    whole = parity.proof(found)
    if entry.head is None:
        return whole
    return whole.model_copy(update={"largest": max(parity.heads[entry.head] for parity in found)})


def _files(folder: Path, entry: Graph) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in entry.files}


def _devices(entry: Graph) -> Iterator[str]:
    """Where a graph is proven: on the devices it is meant for that are here, and where there is none, on the CPU."""
    here = ["cpu"] if base.resolve_device("auto") == "cpu" else ["cpu", "cuda:0"]
    meant = [device for device in here if device.partition(":")[0] in entry.meant]
    yield from meant or ["cpu"]
