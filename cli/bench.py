"""`polyhead bench`: every graph in every runtime, timed on this machine beside the eager network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyhead.cli.console import note, print_json, print_table

if TYPE_CHECKING:
    from polyhead.export.timing.contenders import NetworkPlace
    from polyhead.export.timing.results import Results

__all__ = ["command", "show"]

BATCHES = [1, 8, 64]
RESULTS, PLOT = "bench.json", "bench.png"
BUSY = 0.5  # of the cores taken by others, from which times are worth a word


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    run: Annotated[
        Path | None, typer.Option(help="The training run that the bundle was made of: times the eager network too.")
    ] = None,
    factory: Annotated[
        str | None, typer.Option(help="Instead of --run: package.module:function or path/to/file.py:function.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="With --factory: the network's weights, as safetensors.")] = None,
    spec: Annotated[Path | None, typer.Option(help="With --factory: the model's spec, as YAML.")] = None,
    batch: Annotated[list[int], typer.Option(min=1, help="Rows of a forward pass; may be given again.")] = BATCHES,
    device: Annotated[
        list[str] | None,
        typer.Option(help="cpu, cuda or cuda:N; may be given again. Left out: the CPU, and a GPU where there is one."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of one forward pass on the CPU; 0: all cores.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Visits of each contender at each batch.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.0, help="Of one visit, about.")] = 0.2,
    out: Annotated[Path | None, typer.Option(help="A directory for bench.json and bench.png.")] = None,
    write: Annotated[
        bool,
        typer.Option(
            "--write",
            help="Record the fastest graph per kind of device in the bundle, which serve --runtime auto follows. "
            "The bundle gets a new hash: start its servers again.",
        ),
    ] = False,
    for_batch: Annotated[
        int | None, typer.Option(help="With --write: the batch to choose by; the largest where left out.")
    ] = None,
    any_precision: Annotated[
        bool,
        typer.Option(
            "--any-precision",
            help="With --write: choose among graphs of fp16, bf16 and int8 too. They answer a little differently.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time every graph of a bundle, in fresh processes that take turns; one that answers wrong is refused.

    Example: polyhead bench bundles/digits --run runs/digits --out reports/digits

    Example: polyhead bench bundles/digits --write
    """
    batches = sorted(set(batch))
    network = _network(run, factory, weights, spec)
    if not write and (any_precision or for_batch is not None):
        raise typer.BadParameter("--for-batch and --any-precision say what --write chooses: give --write")
    if for_batch is not None and for_batch not in batches:
        raise typer.BadParameter(f"--for-batch {for_batch} is not timed: give --batch {for_batch} too")
    draw = None if out is None else _require_out(out, bundle)
    from polyhead.export.timing.contenders import devices
    from polyhead.export.timing.measuring import Effort, measure
    from polyhead.export.timing.recording import fastest, record
    from polyhead.serving.bundle import Bundle
    from polyhead.serving.settings import available_cores

    opened = Bundle.open(bundle)
    effort = Effort(batches, rounds, seconds, threads or available_cores())
    with _watching() as watch:
        results = measure(opened, devices(device or []), effort, network, watch)
    if out is not None and draw is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULTS).write_text(results.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (out / PLOT).write_bytes(draw(results))
    choices = fastest(results, opened.manifest, for_batch or batches[-1], any_precision) if write else {}
    digest = record(opened, choices).digest if write else opened.digest
    chosen = {kind: choice.model_dump(mode="json") for kind, choice in choices.items()}
    if json:
        print_json({**results.model_dump(mode="json"), "tuning": chosen, "digest": digest})
        return
    show(results)
    for kind, choice in choices.items():
        note(f"on {kind}: {choice.graph} in {choice.runtime}, {choice.rows_per_second:,.0f} rows/s at {choice.batch}")
        if choice.runtime == "aotinductor":
            note("  which is compiled for this machine: another needs polyhead export --compile, or another --runtime")
    if write:
        note(
            f"{bundle}: bundle {opened.digest[:12]} is now {digest[:12]}; serve --runtime auto follows its tuning.json"
        )
    if out is not None:
        note(f"{out / RESULTS}, {out / PLOT}")


def _network(run: Path | None, factory: str | None, weights: Path | None, spec: Path | None) -> NetworkPlace | None:
    """Where the eager network is; None where nothing says it."""
    from polyhead.export.timing.contenders import NetworkPlace

    own = (factory, weights, spec)
    if any(own) and (run is not None or None in own):
        raise typer.BadParameter("give either --run, or --factory, --weights and --spec together")
    return None if run is None and factory is None else NetworkPlace(run, factory, weights, spec)


def _require_out(out: Path, bundle: Path) -> Callable[[Results], bytes]:
    """How to draw; asked before anything is timed, so that minutes are not lost for a file that cannot be written."""
    from polyhead.export.errors import ExportError

    if out.resolve().is_relative_to(bundle.resolve()):
        raise ExportError(f"{out} is in the bundle, which is sealed by its hashes: give another --out")
    try:
        from polyhead.export.timing.plot import drawn
    except ModuleNotFoundError as error:
        raise ExportError(f"--out draws a plot, and {error.name} is missing: pip install matplotlib") from None
    return drawn


@contextmanager
def _watching() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal; elsewhere a line for each thing that is new."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        said: list[str] = [""]

        def say(text: str, _done: int, _steps: int) -> None:
            if text != said[-1]:
                said.append(text)
                note(text)

        yield say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text, done, steps: bar.update(task, description=text, completed=done, total=steps)


def show(results: Results) -> None:
    """A table per device, and who is not in it."""
    from polyhead.serving.settings import available_cores

    for device, what in results.machines.items():
        timings = [timing for timing in results.timings if timing.device == device]
        if not timings:
            continue
        rows = [
            (
                timing.contender,
                timing.batch,
                f"{timing.median_seconds * 1e3:.3g}",
                f"{timing.low_seconds * 1e3:.3g} to {timing.high_seconds * 1e3:.3g}",
                f"{timing.p95_seconds * 1e3:.3g}",
                f"{timing.rows_per_second:,.0f}",
                f"{timing.speed:.2f} x",
            )
            for timing in sorted(timings, key=lambda timing: timing.batch)
        ]
        plural = "" if results.threads == 1 else "s"
        threads = f", {results.threads} thread{plural}" if device == "cpu" else ""
        print_table(
            f"{results.model} on {device}: {what}{threads}; median of {results.rounds} rounds",
            ("contender", "batch", "ms", "rounds", "p95 ms", "rows/s", f"beside {timings[0].reference}"),
            rows,
        )
    if results.load > BUSY * available_cores():
        note(f"the machine was busy when this began (load {results.load:.1f}): expect other times when it is not")
    if results.eager is not None:
        note(f"eager: {results.eager}")
    for refused in results.refused:
        what = "refused, it answers wrong" if refused.wrong else "not timed"
        note(f"{refused.contender} on {refused.device}: {what}: {refused.reason}")
