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


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    to: Annotated[Target, typer.Option(help="mar: TorchServe's model archive.")],
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there already.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Package a bundle for another server.

    Example: polyhead package bundles/digits --to mar --out model-store
    """
    from polyhead.export.archive import package_mar
    from polyhead.serving.bundle import Bundle

    assert to is Target.mar
    path = package_mar(Bundle.open(bundle), out, force)
    if json:
        print_json({"bundle": str(bundle), "archive": str(path)})
        return
    note(f"{path}: {path.stat().st_size / 1e6:.2f} MB; its workers need the package polyhead[serve]")
