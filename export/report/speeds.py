"""What `polyhead bench` found: rows per second of every graph and runtime, drawn and in a table; and what is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from polyhead.export.errors import ExportError
from polyhead.export.report.parts import milliseconds
from polyhead.export.report.svg import WIDTH, bar, drawing, joined, label
from polyhead.export.timing.contenders import EAGER
from polyhead.export.timing.results import Results, Timing
from polyhead.models.faults import first_fault
from polyhead.models.markup import Markup, paragraph, said, table
from polyhead.serving.bundle import Bundle
from polyhead.serving.tuning import Tuning

__all__ = ["chosen", "load", "speeds"]

STEP = 32  # from contender to contender
THICK = 9


def load(path: Path, bundle: Bundle) -> Results:
    """The `bench.json` of a bundle.

    Raises:
        ExportError: it is something else, or of another bundle.
    """
    try:
        results = Results.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ExportError(
            f"{path}: is not what polyhead bench writes ({first_fault(error, None)}): give its bench.json"
        ) from None
    graphs = {timing.graph for timing in results.timings if timing.graph is not None}
    unknown = sorted(graphs - set(bundle.manifest.graph_ids))
    if results.model != bundle.title or unknown:
        what = f"graph {unknown[0]!r}" if unknown else results.model
        raise ExportError(f"{path}: is of {what}, which is not in bundle {bundle.title}: time this bundle")
    return results


def speeds(results: Results, bundle: Bundle) -> Markup:
    """A drawing per device and batch size, then every figure."""
    devices = list(dict.fromkeys(timing.device for timing in results.timings))
    return joined(
        _other_bundle(results, bundle),
        *(_device(results, device) for device in devices),
        paragraph("" if results.eager is None else f"Eager: {results.eager}"),
        _refused(results),
    )


def _other_bundle(results: Results, bundle: Bundle) -> Markup:
    """The times recorded in a bundle give it another hash, so this is no fault; but it is said."""
    if results.bundle == bundle.digest:
        return Markup()
    return paragraph(f"Timed on bundle {results.bundle[:12]}, which had the same graphs by name.")


def _device(results: Results, device: str) -> Markup:
    timings = [timing for timing in results.timings if timing.device == device]
    threads = f", {results.threads} thread{'' if results.threads == 1 else 's'}" if device == "cpu" else ""
    where = f"{device}: {results.machines.get(device, 'unknown')}{threads}"
    plots = (_plot([one for one in timings if one.batch == batch], device, batch) for batch in results.batches)
    rows = [
        (
            timing.contender,
            said(timing.batch),
            milliseconds(timing.median_seconds),
            f"{milliseconds(timing.low_seconds)} to {milliseconds(timing.high_seconds)}",
            milliseconds(timing.p95_seconds),
            said(round(timing.rows_per_second)),
            f"{timing.speed:.2f} x {timing.reference}",
        )
        for timing in timings
    ]
    names = ("contender", "batch", "median", f"{results.rounds} rounds", "95th percentile", "rows per second", "speed")
    listed = table(names, rows, f"A forward pass on {device}, all heads", values=6)
    return joined(Markup("<h3>"), where, Markup('</h3><div class="plots">'), *plots, Markup("</div>"), listed)


def _plot(timings: Sequence[Timing], device: str, batch: int) -> Markup:
    """One bar a contender, the fastest of this batch size as long as the drawing is wide."""
    if not timings:
        return Markup()
    most = max(timing.rows_per_second for timing in timings)
    drawn = []
    for place, timing in enumerate(timings):
        y = STEP * place
        figure = f"{said(round(timing.rows_per_second))} rows/s, {milliseconds(timing.median_seconds)}"
        drawn.append(label(timing.contender, 0, y + 14, "name"))
        drawn.append(label(figure, WIDTH, y + 14, "figure", end=True))
        kind = "eager" if timing.contender == EAGER else timing.runtime
        drawn.append(bar(kind, (0, y + 19), (WIDTH, THICK), timing.rows_per_second / most))
    title = f"Rows per second on {device}, {said(batch)} row{'' if batch == 1 else 's'} a pass"
    words = "; ".join(f"{one.contender} {said(round(one.rows_per_second))}" for one in timings)
    shown = drawing(title, words, STEP * len(timings), *drawn)
    return joined(Markup("<figure>"), shown, Markup("<figcaption>"), title, Markup("</figcaption></figure>"))


def _refused(results: Results) -> Markup:
    rows = [
        (one.contender, one.device, "answers wrong" if one.wrong else "not timed", one.reason)
        for one in results.refused
    ]
    names = ("contender", "device", "", "reason")
    return table(names, rows, "Left out of the times", values=0) if rows else Markup()


def chosen(tuning: Tuning) -> Markup:
    """What `polyhead serve --runtime auto` takes, by kind of device."""
    rows = [
        (
            device,
            choice.graph,
            choice.runtime,
            choice.machine,
            str(choice.threads),
            f"{said(round(choice.rows_per_second))} at batch {choice.batch}",
        )
        for device, choice in tuning.devices.items()
    ]
    names = ("device", "graph", "runtime", "measured on", "threads", "rows per second")
    return table(names, rows, "Taken by polyhead serve --runtime auto", values=2)
