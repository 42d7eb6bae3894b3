"""`polyhead serve`: bundles over HTTP, until told to stop."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from polyhead.cli.console import note, print_json, working
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.logs import configure, json_line

if TYPE_CHECKING:
    from polyhead.serving.torchserve.launcher import Served, Server

__all__ = ["command"]

LONGEST_EXAMPLE = 4000  # characters of a row that are still worth printing


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, or folders that hold bundles.")],
    config: Annotated[Path | None, typer.Option(help="A config.properties; Polyhead's own where left out.")] = None,
    host: Annotated[
        str, typer.Option(help="Where inference listens; management and metrics stay on 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Of inference; the next two are management and metrics. 0: any free.")
    ] = 8080,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, onnxruntime, torchscript, program or aotinductor.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16, bf16 or int8.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes per model.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of one forward pass; 0: cores / workers.")] = None,
    max_batch_size: Annotated[int | None, typer.Option(help="Requests that one forward pass may answer.")] = None,
    max_batch_delay: Annotated[
        int | None, typer.Option(help="Milliseconds that a batch waits for more requests.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="Of the log: text, or json (one object a line).")] = None,
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Log one line per request.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what TorchServe prints while it starts.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document when ready.")] = False,
) -> None:
    """Serve bundles with TorchServe, ready once each has answered its own golden samples over HTTP.

    Example: polyhead serve bundles/digits --port 8080
    """
    from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration
    from polyhead.serving.torchserve.launcher import Server

    # From here on a signal means an orderly stop, also while the server is still starting.
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    configuration = Configuration.load(config or DEFAULT_CONFIG)
    overrides: dict[str, object] = {"device": device, "runtime": runtime, "precision": precision}
    overrides |= {"workers": workers, "threads": threads}
    overrides |= {"max_batch_size": max_batch_size, "max_batch_delay": max_batch_delay}
    overrides |= {"log_format": log_format, "access_log": access_log}
    settings = configuration.settings_with(overrides, "settings")
    configure(settings.log_format)
    in_json = settings.log_format == "json"
    say = note_json if in_json else note
    opened = [Bundle.open(folder) for folder in find_bundles(bundles)]
    with Server(opened, configuration, settings, host, port, log=note, verbose=verbose) as server:
        starting = f"starting TorchServe (Java {server.java.version} of {server.java.source})"
        if in_json:
            say(starting)
        with nullcontext() if in_json else working(starting):
            try:
                served = server.start(stopping.is_set)
            except LaunchError:
                if not stopping.is_set():
                    raise
                say("stopped before the server was ready")
                return
        announce(server, served, json, say)
        while not stopping.wait(0.2):
            if server.exit_code() is not None:
                raise LaunchError(f"TorchServe ended by itself with status {server.exit_code()}:\n{server.tail()}")
        say("stopping")


def note_json(text: str) -> None:
    """A line for a program that reads the log."""
    note(json_line(text.strip(), logger="polyhead.serve"))


def announce(server: Server, served: Sequence[Served], json: bool, say: Callable[[str], None] = note) -> None:
    """Say what serves where: one JSON document for a program, or lines and an example for a person."""
    addresses = server.addresses
    if json:
        models = [
            {
                "model": one.bundle.title,
                "bundle": one.bundle.digest[:12],
                "graph": one.graph,
                "runtime": one.runtime,
                "device": one.device,
                "why": one.why,
                "workers": one.workers,
                "threads": one.threads,
                "heads": list(one.bundle.spec.heads),
            }
            for one in served
        ]
        print_json(
            {
                "url": addresses.url,
                "management": addresses.management_url,
                "metrics": addresses.metrics_url,
                "models": models,
            }
        )
        return
    if addresses.host not in ("127.0.0.1", "localhost"):
        say(f"{addresses.host} is reachable from outside, and TorchServe gets no more fixes: keep a proxy before it")
    say(f"Polyhead serves on {addresses.url} (management and metrics on loopback; Ctrl-C stops)")
    for one in served:
        say(
            f"  {one.bundle.title}  bundle {one.bundle.digest[:12]}  {one.graph} in {one.runtime} on {one.device}, "
            f"{one.workers} x {one.threads} threads  heads: {', '.join(one.bundle.spec.heads)}"
        )
        say(f"    why {one.graph} in {one.runtime}: {one.why}")
    say("try it:")
    for one in served:
        typer.echo(example_curl(one.bundle, addresses.url))


def find_bundles(paths: Sequence[Path]) -> list[Path]:
    """Each path that is a bundle, and the bundles right inside each path that is a folder of them.

    Raises:
        LaunchError: a path holds no bundle.
    """
    found: list[Path] = []
    for path in paths:
        if (path / MANIFEST).exists() or not path.is_dir():
            found.append(path)
            continue
        # Not glob: it passes over a folder that cannot be read, and says nothing.
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        inside = [folder for folder in folders if (folder / MANIFEST).exists()]
        found += inside
        if not inside:
            raise LaunchError(f"{path}: is no bundle and holds none (no {MANIFEST}): polyhead export writes one")
    return found


def example_curl(bundle: Bundle, url: str) -> str:
    """A command that works: a golden sample as a JSON request, or a note where a row is too long to print."""
    from polyhead.serving.torchserve.readiness import example

    body = example(bundle, bundle.golden(), 0).decode()
    data = shlex.quote(body) if len(body) <= LONGEST_EXAMPLE else "@your-rows.json"
    return f"curl -s {url}/predictions/{bundle.title} -H 'Content-Type: application/json' -d {data}"
