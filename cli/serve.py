"""`polyhead serve`: bundles over HTTP, until told to stop."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from polyhead.cli.console import note, print_json, working
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.logs import configure, json_line
from polyhead.serving.outlet import LostLines, unstalled
from polyhead.serving.shelf import find_bundles

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from polyhead.serving.frontdoor.settings import FrontDoorSettings
    from polyhead.serving.rayserve.service import RayService
    from polyhead.serving.served import Served
    from polyhead.serving.torchserve.service import Plan, Service

__all__ = ["command"]

LONGEST_EXAMPLE = 4000  # characters of a row that are still worth printing


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, or folders that hold bundles.")],
    config: Annotated[Path | None, typer.Option(help="A config.properties; Polyhead's own where left out.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE in the place of the file's line; may be given again.", show_default=False
        ),
    ] = None,
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
    front_door: Annotated[
        bool | None,
        typer.Option("--front-door/--no-front-door", help="nginx in front, as polyhead_front_* in --config says."),
    ] = None,
    console: Annotated[
        bool, typer.Option("--console", help="A page for people on the metrics' port; the front door has it anyway.")
    ] = False,
    probe_interval: Annotated[
        float | None, typer.Option(help="Seconds between two golden samples that readiness asks of each model.")
    ] = None,
    drain_delay: Annotated[
        float | None, typer.Option(help="Seconds between 'not ready' and the first refusal, at a stop.")
    ] = None,
    drain_timeout: Annotated[float | None, typer.Option(help="Seconds that a stop may take in all.")] = None,
    engine: Annotated[str, typer.Option(help="What places the models: torchserve, or ray (Ray Serve).")] = "torchserve",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster: auto, HOST:PORT or ray://…; without, one on this machine.")
    ] = None,
    replicas: Annotated[int | None, typer.Option(help="Of each model on Ray.")] = None,
    min_replicas: Annotated[int | None, typer.Option(help="On Ray, where the load chooses the number.")] = None,
    max_replicas: Annotated[int | None, typer.Option(help="On Ray: lets the load choose the number.")] = None,
    log_format: Annotated[str | None, typer.Option(help="Of the log: text, or json (one object a line).")] = None,
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Log one line per request.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what TorchServe prints while it starts.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document when ready.")] = False,
) -> None:
    """Serve bundles with TorchServe, ready once each has answered its own golden samples over HTTP.

    Example: polyhead serve bundles/digits --port 8080
    """
    from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration
    from polyhead.serving.torchserve.orphans import adopt
    from polyhead.serving.torchserve.service import Plan

    signals = Signals()
    adopt()
    configuration = Configuration.load(config or DEFAULT_CONFIG, set_ or ())
    overrides: dict[str, object] = {"device": device, "runtime": runtime, "precision": precision}
    overrides |= {"workers": workers, "threads": threads}
    overrides |= {"max_batch_size": max_batch_size, "max_batch_delay": max_batch_delay}
    overrides |= {"log_format": log_format, "access_log": access_log}
    settings = configuration.settings_with(overrides, "settings")
    waits = {"probe_interval": probe_interval, "drain_delay": drain_delay, "drain_timeout": drain_timeout}
    service_settings = configuration.service_with(waits, "settings")
    front = configuration.front_with({"door": front_door}, "settings")
    # What Ray's processes print, they print themselves; and what it says while it starts must not come late.
    with unstalled(settings.log_format) if engine == "torchserve" else nullcontext() as outlet:
        configure(settings.log_format)
        in_json = settings.log_format == "json"
        say = note_json if in_json else note
        opened = [Bundle.open(folder) for folder in find_bundles(bundles)]
        plan = Plan(configuration, settings, service_settings, front, host, port, console, verbose, bundles)
        placing = {"replicas": replicas, "min_replicas": min_replicas, "max_replicas": max_replicas}
        families = [] if outlet is None else [LostLines(outlet)]
        with service_of(engine, opened, plan, address, placing, families) as service:
            served = started(service, signals, in_json, say)
            if served is not None:
                announce(service, served, front, json, say)
                run(service, signals, say)


def service_of(
    engine: str,
    opened: Sequence[Bundle],
    plan: Plan,
    address: str | None,
    replicas: Mapping[str, int | None],
    families: Sequence[Collector] = (),
) -> Service | RayService:
    """The server of an engine, not started.

    Raises:
        LaunchError: there is no such engine, or it knows no such flag.
    """
    if engine == "torchserve":
        flags = {"address": address, **replicas}
        foreign = next((name for name, value in flags.items() if value is not None), None)
        if foreign is not None:
            raise LaunchError(f"--{foreign.replace('_', '-')} is for Ray: add --engine ray, or drop it")
        from polyhead.serving.torchserve.service import Service

        return Service(opened, plan, note, families)
    if engine != "ray":
        raise LaunchError(f"engine {engine!r} is not known: give torchserve or ray")
    from polyhead.serving.rayserve.service import serve_on_ray

    return serve_on_ray(opened, plan, address, replicas, note)


def started(
    service: Service | RayService, signals: Signals, in_json: bool, say: Callable[[str], None]
) -> Sequence[Served] | None:
    """What a server serves once it is ready; None where a signal came first.

    Raises:
        LaunchError: it cannot start.
    """
    starting = f"starting {service.engine}"
    if in_json:
        say(starting)
    with nullcontext() if in_json else working(starting):
        try:
            return service.start(signals.stopping.is_set)
        except LaunchError:
            if not signals.stopping.is_set():
                raise
            say("stopped before the server was ready")
            return None


class Signals:
    """What we are told: the first signal means an orderly stop, also while the server starts; the second, at once."""

    def __init__(self) -> None:
        self.stopping, self.hurry = threading.Event(), threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                signal.signal(number, self._told)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        (self.hurry if self.stopping.is_set() else self.stopping).set()


def run(service: Service | RayService, signals: Signals, say: Callable[[str], None]) -> None:
    """Watch over a server until a signal comes, then drain it.

    Raises:
        LaunchError: something of it ended by itself.
    """
    from polyhead.serving.torchserve.orphans import reap

    while not signals.stopping.wait(0.2):
        reap()
        fault = service.fault()
        if fault is not None:
            raise LaunchError(fault)
    say("stopping: answering what was accepted (a second signal stops at once)")
    if not service.drain(signals.hurry.is_set):
        say("stopped before every request was answered")


def note_json(text: str) -> None:
    """A line for a program that reads the log."""
    note(json_line(text.strip(), logger="polyhead.serve"))


def announce(
    service: Service | RayService,
    served: Sequence[Served],
    front: FrontDoorSettings,
    json: bool,
    say: Callable[[str], None] = note,
) -> None:
    """Say what serves where: one JSON document for a program, or lines and an example for a person."""
    addresses, url = service.addresses, service.url
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
                "url": url,
                "side": addresses.side_url,
                "management": addresses.management_url,
                "metrics": addresses.metrics_url,
                "models": models,
            }
        )
        return
    if addresses.warning:
        say(addresses.warning)
    say(f"Polyhead serves on {url} ({addresses.where}; Ctrl-C stops)")
    for one in served:
        say(
            f"  {one.bundle.title}  bundle {one.bundle.digest[:12]}  {one.graph} in {one.runtime} on {one.device}, "
            f"{one.workers} x {one.threads} threads  heads: {', '.join(one.bundle.spec.heads)}"
        )
        say(f"    why {one.graph} in {one.runtime}: {one.why}")
    say("try it:")
    for one in served:
        typer.echo(example_curl(one.bundle, url, front))


def example_curl(bundle: Bundle, url: str, front: FrontDoorSettings) -> str:
    """A command that works: a golden sample as a JSON request, or a note where a row is too long to print.

    What a front door wants to see is named in capitals, for the reader to fill in.
    """
    from polyhead.serving.torchserve.readiness import example

    body = example(bundle, bundle.golden(), 0).decode()
    data = shlex.quote(body) if len(body) <= LONGEST_EXAMPLE else "@your-rows.json"
    flags = [
        *(["--cacert CA.pem"] if front.door and front.tls else []),
        *(["--cert CERTIFICATE.pem --key KEY.pem"] if front.door and front.client_ca else []),
        *(["-H 'X-Api-Key: KEY'"] if front.door and front.api_keys else []),
        "-H 'Content-Type: application/json'",
    ]
    return f"curl -s {url}/predictions/{bundle.title} {' '.join(flags)} -d {data}"
