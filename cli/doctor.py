"""`polyhead doctor`: what is installed, which device, what is wrong, how to mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from polyhead.cli.console import note, print_json

if TYPE_CHECKING:
    from polyhead.serving.doctor.finding import Finding

__all__ = ["command"]

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "bold red")}
INDENT = 9


def command(
    bundle: Annotated[
        list[Path] | None, typer.Option(help="A bundle to verify, golden samples included; may be given again.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A running server to ask: http://127.0.0.1:8080.")] = None,
    config: Annotated[Path | None, typer.Option(help="A config.properties; Polyhead's own where left out.")] = None,
    port: Annotated[int, typer.Option(help="That inference is to listen on; the two after it belong to it.")] = 8080,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at what is installed, the machine, bundles and a running server; say what is wrong and how to mend it.

    Exit status 1 where something is a problem; warnings alone are 0.

    Example: polyhead doctor --bundle bundles/digits --url http://127.0.0.1:8080
    """
    from polyhead.serving.doctor.examination import examine

    findings = list(examine(bundle or (), config, url, port))
    counts = Counter(finding.level for finding in findings)
    if json:
        print_json(
            {
                "healthy": counts["problem"] == 0,
                "problems": counts["problem"],
                "warnings": counts["warning"],
                "findings": [finding.plain() for finding in findings],
            }
        )
    else:
        _print(findings)
        note(f"{counts['ok']} as they should be, {counts['warning']} warnings, {counts['problem']} problems")
    if counts["problem"]:
        raise typer.Exit(1)


def _print(findings: Sequence[Finding]) -> None:
    """One finding a line; below it why it matters and what mends it."""
    console = Console(highlight=False, soft_wrap=True)
    broad = max(len(finding.topic) for finding in findings)
    for finding in findings:
        word, style = MARKS[finding.level]
        line = Text.assemble((f"{word:<{INDENT}}", style), (f"{finding.topic:<{broad}}  ", "bold"), finding.what)
        console.print(line)
        for label, text in (("why", finding.why), ("mend", finding.mend)):
            if text:
                console.print(Text(f"{'':<{INDENT + broad + 2}}{label}: {text}"))
