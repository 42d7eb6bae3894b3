"""`polyhead export`: a trained network to a verified bundle."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from polyhead.cli.console import note, print_json, print_parity, working

__all__ = ["command"]


class Formats(StrEnum):
    """Those of `polyhead.serving.manifest.Format`."""

    onnx = "onnx"
    torchscript = "torchscript"
    program = "program"


class Precisions(StrEnum):
    """Those of `polyhead.serving.manifest.Precision`."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


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
        typer.Option(help="With --factory: real input rows, as safetensors or JSON; random ones where left out."),
    ] = None,
    formats: Annotated[
        list[Formats],
        typer.Option("--format", help="Graph format; may be given again. program is torch.export's .pt2."),
    ] = list(Formats),  # noqa: B006
    precisions: Annotated[
        list[Precisions],
        typer.Option("--precision", help="Graphs beside those in fp32; may be given again. int8 is ONNX only."),
    ] = [],  # noqa: B006
    keep: Annotated[
        list[str], typer.Option("--keep-fp32", help="A head whose own layers stay in fp32; may be given again.")
    ] = [],  # noqa: B006
    calibration: Annotated[
        Path | None,
        typer.Option(help="Rows to calibrate int8 graphs of images on, as --samples; the samples where left out."),
    ] = None,
    split: Annotated[
        bool, typer.Option("--split/--no-split", help="Also write trunk and heads as graphs of their own (ONNX).")
    ] = True,
    compile: Annotated[  # noqa: A002 - the option's name
        bool,
        typer.Option("--compile", help="Also compile the program for this very machine (AOTInductor), into the cache."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a trained network, and prove every graph equal to it, head by head.

    Example: polyhead export runs/digits --out bundles/digits

    Example: polyhead export runs/digits --out bundles/digits --precision int8 --keep-fp32 ink

    Example: polyhead export --factory net.py:build --weights net.safetensors --spec spec.yaml --out bundles/net
    """
    own = (factory, weights, spec)
    if (
        (run is None) == (factory is None)
        or (factory is not None and None in own)
        or (run is not None and any([*own, samples]))
    ):
        raise typer.BadParameter("give either a run's directory, or --factory, --weights and --spec together")
    if compile and Formats("program") not in formats:
        raise typer.BadParameter("--compile compiles the program: add --format program")
    with working("loading PyTorch"):
        from polyhead.export import assemble, source
        from polyhead.export.samples import load_samples
    if run is not None:
        found = source.from_run(run)
    else:
        assert factory is not None
        assert weights is not None
        assert spec is not None
        found = source.from_factory(factory, weights, spec, samples)
        if samples is None:
            note("no --samples: golden samples are random rows; real ones prove more")
    rows = None if calibration is None else replace(found, samples=load_samples(calibration, found.spec))
    bundle, proofs = assemble.export(
        found,
        out,
        [form.value for form in formats],
        force,
        say=note,
        precisions=[precision.value for precision in precisions],
        keep=keep,
        calibration=None if rows is None else rows.arrays(),
        apart=split,
    )
    compiled = _compile(out) if compile else None
    parity = [_figures(proof) for proof in proofs]
    if json:
        content = {"bundle": str(out), "model": bundle.title, "digest": bundle.digest, "parity": parity}
        print_json(content | ({} if compiled is None else {"compiled": compiled}))
        return
    print_parity(f"{bundle.title}: equal to eager PyTorch", parity)
    note(f"{out}: bundle {bundle.digest[:12]}; next: polyhead serve {out}")


def _figures(proof: Any) -> dict[str, Any]:
    """A graph's parity as the table and the JSON document have it."""
    return {
        "graph": proof.graph,
        "runtime": proof.runtime,
        "device": proof.device,
        "heads": proof.heads,
        "decisions": proof.decisions,
    }


def _compile(out: Path) -> str:
    """Compile into this machine's cache; returns the place."""
    from polyhead.export.compiling import compile_program
    from polyhead.serving.bundle import Bundle

    with working("compiling the program for this machine (minutes)"):
        path = compile_program(Bundle.open(out))
    note(f"compiled for this machine: {path}; polyhead serve --runtime aotinductor runs it")
    return str(path)
