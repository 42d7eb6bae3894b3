"""`polyhead report`: one page about a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import note, print_json, working

__all__ = ["command"]


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; <bundle>.html beside the bundle where left out. Replaced if there.")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The bench.json that polyhead bench --out wrote.")
    ] = None,
    time: Annotated[
        bool, typer.Option("--time/--no-time", help="Measure milliseconds of trunk and heads on this machine.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write one HTML page about a bundle: its parts and what they cost, parity, spec, graphs and hashes.

    Example: polyhead report bundles/digits

    Example: polyhead report bundles/digits --bench reports/digits/bench.json --out digits.html
    """
    from polyhead.export.report.document import default_place, require_outside, write_report
    from polyhead.export.report.speeds import load
    from polyhead.serving.bundle import Bundle

    opened = Bundle.open(bundle)
    place = require_outside(opened, default_place(opened) if out is None else out)  # before minutes are spent
    results = None if bench is None else load(bench, opened)
    times = None
    if time:
        from polyhead.export.report.times import measure
        from polyhead.serving.settings import available_cores

        with working("timing trunk and heads (--no-time leaves this out)"):
            times = measure(opened, available_cores())
    write_report(opened, place, times, results)
    if json:
        named = {"bundle": str(bundle), "model": opened.title, "digest": opened.digest}
        measured = None if times is None else dataclasses.asdict(times)
        print_json({**named, "page": str(place), "bytes": place.stat().st_size, "times": measured})
        return
    note(f"{place}: {place.stat().st_size / 1e3:.0f} kB, one file to open in a browser")
