"""`polyhead export`: a trained network to a verified bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import note, print_json, print_parity, working

__all__ = ["command"]


class Format(StrEnum):
    """Graph formats."""

    onnx = "onnx"
    torchscript = "torchscript"


def command(
    run: Annotated[Path | None, typer.Argument(help="A training run's directory (or use --factory).")] = None,
    out: Annotated[Path, typer.Option(help="The bundle's directory.")] = ...,  # type: ignore[assignment]
    factory: Annotated[
        str | None,
        typer.Option(help="package.module:function or path/to/file.py:function that returns your network."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With --factory: the network's weights, as safetensors.")] = None,
    spec: Annotated[Path | None, typer.Option(help="With --factory: the model's spec, as YAML.")] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="With --factory: real input rows, as safetensors; random ones where left out."),
    ] = None,
    formats: Annotated[list[Format], typer.Option("--format", help="Graph format; may be given again.")] = list(Format),  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a trained network, and prove every graph equal to it, head by head.

    Example: polyhead export runs/digits --out bundles/digits

    Example: polyhead export --factory net.py:build --weights net.safetensors --spec spec.yaml --out bundles/net
    """
    own = (factory, weights, spec)
    if (
        (run is None) == (factory is None)
        or (factory is not None and None in own)
        or (run is not None and any([*own, samples]))
    ):
        raise typer.BadParameter("give either a run's directory, or --factory, --weights and --spec together")
    with working("loading PyTorch"):
        from polyhead.export import assemble, source
    if run is not None:
        found = source.from_run(run)
    else:
        assert factory is not None
        assert weights is not None
        assert spec is not None
        found = source.from_factory(factory, weights, spec, samples)
        if samples is None:
            note("no --samples: golden samples are random rows; real ones prove more")
    bundle, proofs = assemble.export(found, out, [f.value for f in formats], force, say=note)
    parity = [{"graph": p.graph, "runtime": p.runtime, "device": p.device, "heads": p.heads} for p in proofs]
    if json:
        print_json({"bundle": str(out), "model": bundle.title, "digest": bundle.digest, "parity": parity})
        return
    print_parity(f"{bundle.title}: equal to eager PyTorch", parity)
    note(f"{out}: bundle {bundle.digest[:12]}; next: polyhead serve {out}")
