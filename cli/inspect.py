"""`polyhead inspect`: what is in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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

__all__ = ["command"]


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a bundle's inputs, heads and graphs, after checking every file's hash.

    Example: polyhead inspect bundles/digits
    """
    opened = Bundle.open(bundle)
    if json:
        print_json({"bundle": str(bundle), "digest": opened.digest, **opened.manifest.model_dump(mode="json")})
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
    graphs = [
        (
            g.id,
            g.format,
            g.precision,
            f"{manifest.files[g.file].size / 1e6:.2f} MB",
            f"{manifest.parity[g.id]:.2e}",
        )
        for g in manifest.graphs
    ]
    print_table("graphs", ("graph", "format", "precision", "size", "largest difference to eager"), graphs)
    note(f"bundle {opened.digest[:12]}, written with {', '.join(f'{n} {v}' for n, v in manifest.versions.items())}")


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
