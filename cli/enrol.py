"""`polyhead enrol`: new classes for a oneshot head, from one example or a few."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import note, print_json, print_table

__all__ = ["command"]


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="The examples: .png, .jpg, .txt, .bin, or .json instances."),
    ],
    head: Annotated[str, typer.Option(help="The oneshot head.")],
    label: Annotated[str, typer.Option(help="The class that every example belongs to.")],
    out: Annotated[Path, typer.Option(help="The new bundle's directory.")],
    version: Annotated[str | None, typer.Option(help="The new bundle's version; the old one's where left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a bundle that knows one more class. Nothing is trained, and no graph changes.

    Example: polyhead enrol bundles/digits seven.png --head glyph --label 7 --out bundles/digits-7
    """
    from polyhead.export.enrol import enrol
    from polyhead.serving.bundle import Bundle
    from polyhead.serving.protocol.files import decode_file
    from polyhead.serving.settings import Settings

    opened = Bundle.open(bundle)
    queries = [decode_file(path, opened.spec, Settings()) for path in files]
    made = enrol(opened, head, {label: queries}, out, version, force)
    enrolled = made.prototypes()[head]
    counts = dict(zip(enrolled.labels, enrolled.examples.tolist(), strict=True))
    if json:
        print_json({"bundle": str(out), "model": made.title, "digest": made.digest, "head": head, "classes": counts})
        return
    print_table(f"{made.title} {head}: enrolled classes", ("class", "examples"), list(counts.items()))
    note(f"next: polyhead serve {out}")
