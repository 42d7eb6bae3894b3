"""`polyhead package`: a bundle in another server's form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import note, print_json

__all__ = ["command"]


class Target(StrEnum):
    """Forms to package a bundle in."""

    mar = "mar"
    no_archive = "no-archive"
    triton = "triton"


class Precision(StrEnum):
    """Of a graph."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    to: Annotated[
        Target,
        typer.Option(
            help="mar: TorchServe's archive; no-archive: the same as a folder; triton: a folder in a Triton repository."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model store or model repository to write into.")],
    precision: Annotated[
        Precision | None, typer.Option(help="With --to triton: of the ONNX graph that is packaged; else fp32.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what was packaged there before.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Package a bundle for another server.

    Example: polyhead package bundles/digits --to mar --out model-store

    Example: polyhead package bundles/digits --to triton --precision fp16 --out model-repository
    """
    if precision is not None and to is not Target.triton:
        raise typer.BadParameter(
            f"--precision is for --to triton: {to} takes the whole bundle, and model-config.yaml chooses the graph"
        )
    from polyhead.serving.bundle import Bundle

    opened = Bundle.open(bundle)
    match to:
        case Target.mar:
            from polyhead.export.archive import package_mar

            path, needs = package_mar(opened, out, force), "its workers need the package polyhead[serve]"
        case Target.no_archive:
            from polyhead.export.archive import package_no_archive

            path, needs = package_no_archive(opened, out, force), "its workers need the package polyhead[serve]"
        case Target.triton:
            from polyhead.export.triton.repository import fused_onnx, package_triton

            graph = fused_onnx(opened, precision or Precision.fp32)
            path, needs = package_triton(opened, out, force, graph), f"next: tritonserver --model-repository {out}"
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    if json:
        named = {"bundle": str(bundle), "model": opened.title, "digest": opened.digest}
        print_json({**named, "to": to.value, "path": str(path), "bytes": size})
        return
    note(f"{path}: {size / 1e6:.2f} MB; {needs}")
