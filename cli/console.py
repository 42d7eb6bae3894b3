"""What the verbs print: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["error_line", "metrics_text", "note", "print_json", "print_parity", "print_table", "working"]

PIPE_WIDTH = 200


def print_json(content: Any) -> None:
    """One JSON document on one line."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; plain text where standard output is no terminal."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A pipe has no width of its own: long values must not be folded there.
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def note(text: str) -> None:
    """A line for the person who watches."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def error_line(text: str) -> None:
    """Why a job failed."""
    note(f"polyhead: {text}")


def print_parity(title: str, proofs: Sequence[Mapping[str, Any]]) -> None:
    """By graph, runtime and device: of every head, the largest difference to eager, and the decisions that are its."""
    rows = [
        (proof["graph"], proof["runtime"], proof["device"], head, f"{value:.2e}", _decided(proof, head))
        for proof in proofs
        for head, value in proof["heads"].items()
    ]
    print_table(title, ("graph", "runtime", "device", "head", "largest difference", "decisions equal"), rows)


def _decided(proof: Mapping[str, Any], head: str) -> str:
    """`141 of 141`; nothing where a head decides nothing, or nobody counted."""
    clear, same = proof.get("decisions", {}).get(head, (0, 0))
    return f"{same} of {clear}" if clear else ""


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on a terminal, a line elsewhere, while something takes longer than a moment."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        note(text)
        yield


def metrics_text(metrics: Mapping[str, float]) -> str:
    """`accuracy 0.9889` and the like."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
