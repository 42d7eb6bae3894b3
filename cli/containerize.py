"""`polyhead containerize`: bundles baked into an image of their own."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import note, print_json

__all__ = ["command"]


class Target(StrEnum):
    """Images that Polyhead's Dockerfile makes."""

    cpu = "cpu"
    gpu = "gpu"


class Tool(StrEnum):
    """What builds the image."""

    auto = "auto"
    docker = "docker"
    podman = "podman"
    buildah = "buildah"


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, or folders that hold bundles.")],
    tag: Annotated[str | None, typer.Option(help="The image's name, as registry/digits:1.0.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="An image built from Polyhead's sources, to stand on; left out, the sources are built too."),
    ] = None,
    target: Annotated[
        Target, typer.Option(help="Without --base: the image for CPUs, or for NVIDIA's GPUs.")
    ] = Target.cpu,
    builder: Annotated[
        Tool, typer.Option(help="auto: the first of docker, podman and buildah that works.")
    ] = Tool.auto,
    build_arg: Annotated[
        list[str] | None, typer.Option(help="NAME=value, given to the builder; as often as needed.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A config.properties in place of the image's own.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the build context there, and build nothing.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a context that was written before.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Bake bundles into a container image, each verified, at /models; nothing is pushed anywhere.

    Example: polyhead containerize bundles/digits --tag digits:1.0 --base polyhead:cpu

    Example: polyhead containerize bundles --output context        # for a builder elsewhere
    """
    if (tag is None) == (output is None):
        raise typer.BadParameter("give --tag to build an image, or --output to write its build context")
    from polyhead.export.image.builder import find_builder
    from polyhead.export.image.context import write_context
    from polyhead.serving.bundle import Bundle
    from polyhead.serving.shelf import find_bundles
    from polyhead.serving.torchserve.configuration import Configuration

    if config is not None:
        given = Configuration.load(config)  # a typo is told now, not by the container
        for read in (given.settings_with, given.service_with, given.front_with):
            read({}, str(config))
    tool = find_builder(builder) if tag is not None else None
    opened = [Bundle.open(folder) for folder in find_bundles(bundles)]
    models = {bundle.title: bundle.digest for bundle in opened}
    with tempfile.TemporaryDirectory(prefix="polyhead-") if output is None else nullcontext() as folder:
        context = write_context(opened, output or Path(str(folder), "context"), target, base, config, force)
        if tool is None:
            if json:
                print_json({"context": str(context), "models": models})
            else:
                note(f"{context}: the build context of {', '.join(models)}; next: docker build --tag NAME {context}")
            return
        assert tag is not None
        note(f"building {tag} of {', '.join(models)} with {tool.name}{''.join(f' ({fault})' for fault in tool.passed)}")
        image = tool.build(context, tag, [f"--build-arg={one}" for one in build_arg or []])
    if json:
        print_json({"tag": tag, "image": image, "builder": tool.name, "models": models})
    else:
        note(f"{tag} ({image[:12]}); next: docker run --init --read-only --tmpfs /tmp:size=512m -p 8080:8080 {tag}")
