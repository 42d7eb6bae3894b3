"""`python -m benchmarks.score`: batch scoring beside its peers; with --write, a report in benchmarks/reports."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import ROOT
from benchmarks.peers.machine import describe
from benchmarks.score.contenders import CONTENDERS
from benchmarks.score.report import markdown, write
from benchmarks.score.rounds import Asked, memory, prepared, rounds
from benchmarks.score.workloads import WORKLOADS

__all__ = ["arguments", "main"]

REPORTS = ROOT / "benchmarks" / "reports"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what is left out is everything, or with --quick a little of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__)
    parser.add_argument("--workload", type=_names(WORKLOADS), help=f"some of {', '.join(WORKLOADS)}")
    parser.add_argument("--contenders", type=_names(CONTENDERS), help=f"some of {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; 3 where left out")
    parser.add_argument("--rows", type=int, help="of every workload's table; each has its own number where left out")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="one for each core")
    parser.add_argument("--quick", action="store_true", help="short tables, one round, no memory")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory for ten times the rows")
    parser.add_argument("--scratch", type=Path, help="where tables are written; the system's temporary directory else")
    parser.add_argument("--write", action="store_true", help=f"write JSON, PNG and Markdown to {REPORTS.name}/")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args(given)
    asked.workload = asked.workload or list(WORKLOADS)
    asked.contenders = asked.contenders or list(CONTENDERS)
    if asked.quick:
        asked.rounds, asked.no_memory = 1, True
    if asked.rounds < 1 or asked.processes < 1 or (asked.rows is not None and asked.rows < 100):
        parser.error("--rounds and --processes must be 1 or more, --rows 100 or more")
    return asked


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    names = list(known)

    def parse(value: str) -> list[str]:
        asked = [part.strip() for part in value.split(",")]
        for name in asked:
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
        return asked

    return parse


def main() -> None:
    """Measure, print the report, and write it where asked."""
    asked = arguments()
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": describe(),
        "command": " ".join(["python -m benchmarks.score", *sys.argv[1:]]),
        "processes": asked.processes,
        "workloads": {},
    }
    for name in asked.workload:
        results["workloads"][name] = workload(name, asked, Asked(asked.rounds, asked.processes, say))
    print(markdown(results, "score.png"))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.write:
        say(f"wrote {write(results, REPORTS).relative_to(ROOT)}")


def workload(name: str, asked: argparse.Namespace, how: Asked) -> dict[str, Any]:
    """One workload's figures."""
    chosen = WORKLOADS[name]
    rows = asked.rows or (chosen.quick if asked.quick else chosen.rows)
    with tempfile.TemporaryDirectory(prefix="polyhead-score-", dir=asked.scratch) as folder:
        made = prepared(chosen, rows, Path(folder) / name, how.say)
        standings = rounds(made, asked.contenders, how)
        peaks = {} if asked.no_memory or "polyhead" not in asked.contenders else memory(made, how)
        return {
            "about": chosen.about,
            "rows": rows,
            "megabytes": made.table.stat().st_size / 1e6,
            "contenders": {one.name: one.content() for one in standings.values()},
            "memory": peaks,
        }


if __name__ == "__main__":
    main()
