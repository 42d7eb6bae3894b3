"""What is in a bundle, in tables: the spec's inputs and heads, the graphs, every file with its hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from polyhead.export.report.diagram import takes
from polyhead.models.inputs import ImageInput, InputSpec, TensorInput, dimensions
from polyhead.models.markup import Markup, metric_rows, rounded, said, table
from polyhead.models.spec import (
    EmbeddingHead,
    HeadSpec,
    Labelled,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    TokensHead,
)
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.manifest import Graph, Manifest

__all__ = ["files", "graphs", "heads", "inputs", "metrics", "versions"]

SHOWN = 12  # labels, before the others are folded away
NOTHING = "–"


def inputs(bundle: Bundle) -> Markup:
    """A table of the inputs: kind, what a row holds, how it is made ready."""
    known = bundle.spec.inputs
    lengths = dimensions(known)
    rows = [(name, value.kind, takes(value), _prepared(value, lengths)) for name, value in known.items()]
    return table(("input", "kind", "takes", "made ready"), rows, "Inputs", values=0)


def _prepared(value: InputSpec, lengths: Mapping[str, tuple[int, int]]) -> str:
    match value:
        case ImageInput():
            return f"resize {value.resize}, mean {said(value.mean)}, standard deviation {said(value.std)}"
        case TensorInput():
            free = [f"{name} from {lengths[name][0]} to {lengths[name][1]}" for name in dict.fromkeys(value.free)]
            filled = "rows of one shape run together" if value.pad is None else f"filled up with {value.pad:g}"
            return ", ".join([*free, *([filled] if free else [])]) or "as it is"
        case _:
            longer = "longer texts are cut" if value.truncate else "longer texts are refused"
            return f"{value.tokenizer}, {longer}"


def heads(bundle: Bundle) -> Markup:
    """A table of the heads: kind, what they answer, labels, thresholds, where their output is."""
    enrolled = {name: found.labels for name, found in bundle.prototypes().items()}
    rows = [
        (name, head.kind, _answers(head), _labels(enrolled.get(name, ()) or _own(head)), _settings(head))
        for name, head in bundle.spec.heads.items()
    ]
    names = ("head", "kind", "answers", "labels", "settings")
    return table(names, rows, "Heads", values=0)


def _answers(head: HeadSpec) -> str:
    match head:
        case RegressionHead():
            return f"{head.dim} value{'s' if head.dim > 1 else ''}{f' in {head.unit}' if head.unit else ''}"
        case EmbeddingHead():
            return f"{head.dim} numbers{', length 1' if head.normalize else ''}"
        case OneShotHead():
            return f"nearest class by {head.dim} numbers{', length 1' if head.normalize else ''}"
        case MultilabelHead():
            return f"any of {said(len(head.labels))} labels"
        case _:
            place = {"tokens": " for each word", "segmentation": " for each pixel"}.get(head.kind, "")
            return f"one of {said(len(head.labels))} labels{place}"


def _own(head: HeadSpec) -> tuple[str, ...]:
    return head.labels if isinstance(head, Labelled) else ()


def _labels(labels: Sequence[str]) -> str:
    """The first ones, and all others behind a word to press."""
    if len(labels) <= SHOWN + 1:
        return ", ".join(labels) or NOTHING
    first, others = ", ".join(labels[:SHOWN]), ", ".join(labels[SHOWN:])
    more = f"{said(len(labels) - SHOWN)} more"
    return Markup(f"{escape(first)}<details><summary>{more}</summary>{escape(others)}</details>")


def _settings(head: HeadSpec) -> str:
    found = [head.description] if head.description else []
    match head:
        case MultilabelHead():
            found.append(_thresholds(head))
        case OneShotHead():
            farthest = "" if head.max_distance is None else f", no label beyond distance {head.max_distance:g}"
            found.append(f"scale {head.scale:g}{farthest}")
        case TokensHead() if head.input is not None:
            found.append(f"labels the words of {head.input}")
        case _:
            pass
    if head.output is not None:
        found.append(f"output {head.output!r} of the network")
    return "; ".join(found) or NOTHING


def _thresholds(head: MultilabelHead) -> str:
    if isinstance(head.threshold, tuple):
        each = zip(head.labels, head.threshold, strict=True)
        return f"threshold {', '.join(f'{label} {value:g}' for label, value in each)}"
    return f"threshold {head.threshold:g}"


def metrics(manifest: Manifest) -> Markup:
    """A table of what training measured on held-out rows."""
    return table(("head", "metric", "value"), metric_rows(manifest.spec, manifest.metrics), "On held-out rows")


def graphs(manifest: Manifest) -> Markup:
    """A table of the graphs: format, precision, size, devices, and how far they are from eager."""
    rows = [(graph.id, graph.format, *_precision(graph), *_place(manifest, graph)) for graph in manifest.graphs]
    names = ("graph", "format", "precision", "kept in fp32", "meant for", "size", "largest difference", "decisions")
    return table(names, rows, "Graphs, and their largest difference to eager PyTorch", values=3)


def _precision(graph: Graph) -> tuple[str, ...]:
    return graph.precision, ", ".join(graph.kept) or NOTHING, ", ".join(graph.meant)


def _place(manifest: Manifest, graph: Graph) -> tuple[str, ...]:
    proof, size = manifest.parity[graph.id], rounded(manifest.files[graph.file].size, "B")
    beside = "" if graph.weights is None else f" + {rounded(manifest.files[graph.weights].size, 'B')} shared"
    return f"{size}{beside}", f"{proof.largest:.2e}", f"{100 * proof.agreement:.5g} %"


def files(bundle: Bundle) -> Markup:
    """A table of every file with its size in bytes and its SHA-256, the manifest first: its hash is the bundle's."""
    own = (bundle.folder / MANIFEST).stat().st_size
    listed = [(MANIFEST, own, bundle.digest), *_listed(bundle.manifest)]
    rows = [(name, said(size), Markup(f"<code>{escape(digest)}</code>")) for name, size, digest in listed]
    return table(("file", "bytes", "SHA-256"), rows, "Every file, and its hash", values=2)


def _listed(manifest: Manifest) -> Iterator[tuple[str, int, str]]:
    for name, entry in sorted(manifest.files.items()):
        yield name, entry.size, entry.sha256


def versions(manifest: Manifest) -> Markup:
    """A table of what the bundle was written with."""
    return table(("package", "version"), sorted(manifest.versions.items()), "Written with")
