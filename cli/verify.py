"""`polyhead verify`: whether a bundle is whole, and computes here what it computed where it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import note, print_json, print_parity

__all__ = ["command"]


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check every file's hash, and replay the golden samples through every graph on this machine.

    Example: polyhead verify bundles/digits
    """
    from polyhead.serving.bundle import Bundle
    from polyhead.serving.choosing import Chosen
    from polyhead.serving.engine import Engine
    from polyhead.serving.runtimes import base
    from polyhead.serving.settings import Settings, available_cores

    Settings.parse({"device": device}, "--device")
    opened = Bundle.open(bundle)
    found, threads = base.resolve_device(device), available_cores()
    results = []
    for graph in opened.manifest.graphs:
        if graph.part == "fused":
            runtime = next(name for name in base.AUTO if base.FORMATS[name] == graph.format)
            engine = Engine.of(opened, Chosen(graph, runtime, "every graph is verified"), found, threads)
        elif graph.part == "trunk":  # with the heads behind it
            engine = Engine.split(opened, found, threads)
        else:
            continue
        heads = engine.replay_golden()
        results.append({"graph": graph.id, "runtime": engine.runtime.name, "device": found, "heads": heads})
    if json:
        print_json({"bundle": str(bundle), "model": opened.title, "digest": opened.digest, "graphs": results})
        return
    print_parity(f"{opened.title}: {opened.golden().rows} golden samples reproduced", results)
    note(f"{bundle}: {len(opened.manifest.files)} files with the right hashes, bundle {opened.digest[:12]}")
