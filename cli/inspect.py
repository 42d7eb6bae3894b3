"""`polyhead inspect`: what is in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from polyhead.cli.console import metrics_text, note, print_json, print_table
from polyhead.models.spec import (
    EmbeddingHead,
    HeadSpec,
    ImageInput,
    InputSpec,
    Labelled,
    RegressionHead,
    TensorInput,
)
from polyhead.serving.bundle import Bundle
from polyhead.serving.manifest import Graph, Manifest

__all__ = ["command"]


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a bundle's inputs, heads and graphs, after checking every file's hash.

    Example: polyhead inspect bundles/digits
    """
    opened = Bundle.open(bundle)
    tuning = opened.tuning()
    if json:
        devices = {} if tuning is None else tuning.model_dump(mode="json")["devices"]
        content = {"bundle": str(bundle), "digest": opened.digest, "tuning": devices}
        print_json({**content, **opened.manifest.model_dump(mode="json")})
        return
    manifest, spec = opened.manifest, opened.spec
    print_table(
        f"{opened.title} inputs",
        ("input", "kind", "takes"),
        [(n, s.kind, _takes(s)) for n, s in spec.inputs.items()],
    )
    enrolled = {name: found.labels for name, found in opened.prototypes().items()}
    heads = [
        (n, h.kind, _gives(h, enrolled.get(n, ())), metrics_text(manifest.metrics.get(n, {})))
        for n, h in spec.heads.items()
    ]
    print_table("heads", ("head", "kind", "answers", "held-out metrics"), heads)
    print_table(
        "graphs",
        ("graph", "format", "precision", "meant for", "files", "largest difference to eager", "decisions equal"),
        [_graph(manifest, graph) for graph in manifest.graphs],
    )
    if manifest.unsplit is not None:
        note(f"no graphs of trunk and heads: {manifest.unsplit}")
    parts = [
        (name, f"{part.parameters:,}", "unknown" if part.flops is None else f"{part.flops:,}")
        for name, part in manifest.parts.items()
    ]
    print_table("parts", ("part", "parameters", "operations a row"), parts)
    if tuning is not None:
        chosen = [
            (kind, c.graph, c.runtime, f"{c.rows_per_second:,.0f} rows/s at {c.batch}, {c.threads} threads", c.machine)
            for kind, c in tuning.devices.items()
        ]
        print_table(
            "fastest by polyhead bench, what --runtime auto takes",
            ("device", "graph", "runtime", "measured", "on"),
            chosen,
        )
    note(f"bundle {opened.digest[:12]}, written with {', '.join(f'{n} {v}' for n, v in manifest.versions.items())}")


def _graph(manifest: Manifest, graph: Graph) -> tuple[str, ...]:
    """A graph's line."""
    proof = manifest.parity[graph.id]
    kept = f", {', '.join(graph.kept)} in fp32" if graph.kept else ""
    files = ", ".join(f"{PurePosixPath(name).name} {manifest.files[name].size / 1e6:.2f} MB" for name in graph.files)
    return (
        graph.id,
        graph.format,
        f"{graph.precision}{kept}",
        ", ".join(graph.meant),
        files,
        f"{proof.largest:.2e} on {', '.join(proof.devices)}",
        f"{proof.agreement:.1%}",
    )


def _takes(spec: InputSpec) -> str:
    match spec:
        case ImageInput():
            return f"{spec.size[0]} x {spec.size[1]} pixels, {spec.channels}, resize {spec.resize}"
        case TensorInput():
            return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"
        case _:
            return f"UTF-8, {spec.max_length} tokens"


def _gives(head: HeadSpec, enrolled: Sequence[str]) -> str:
    match head:
        case Labelled():
            return f"{len(head.labels)} labels: {_shown(head.labels)}"
        case RegressionHead():
            return f"{head.dim} value{'s' if head.dim > 1 else ''} {head.unit}".strip()
        case EmbeddingHead():
            return f"{head.dim} numbers{', length 1' if head.normalize else ''}"
        case _:
            return (
                f"nearest of {len(enrolled)} enrolled classes: {_shown(enrolled)}" if enrolled else "nothing enrolled"
            )


def _shown(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:12])}{', …' if len(labels) > 12 else ''}"
