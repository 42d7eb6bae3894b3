"""`python -m benchmarks.peers`: every contender on every workload; with --write, a report in benchmarks/reports."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers import wrk
from benchmarks.peers.contenders import CONTENDERS, ROOT
from benchmarks.peers.machine import describe, pinning
from benchmarks.peers.material import make
from benchmarks.peers.report import markdown, write
from benchmarks.peers.rounds import Asked, measure
from benchmarks.peers.workloads import WORKLOADS

__all__ = ["arguments", "main"]

REPORTS = ROOT / "benchmarks" / "reports"
COBATCHING_ROUNDS = 3  # medians inside one process: the spread is small, and MiniLM takes seconds a batch
QUICK = {
    "workload": ["mlp", "mlp-json", "mlp-64rows"],
    "contenders": ["polyhead", "mosec", "torchserve", "litserve"],
    "rounds": 1,
    "seconds": 0.5,
    "load": 0.5,
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what is left out is everything, or with --quick a little of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--workload", type=_names(WORKLOADS), help=f"some of {', '.join(WORKLOADS)}")
    parser.add_argument("--contenders", type=_names(CONTENDERS), help=f"some of {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, help="turns of each contender; 3 where left out")
    parser.add_argument("--seconds", type=float, help="factor on how long everything is measured")
    parser.add_argument("--load", type=float, help="factor on how long a Poisson load lasts; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="a few contenders and workloads, one short round")
    parser.add_argument("--no-cobatching", action="store_true", help="leave the measurements in process out")
    parser.add_argument("--write", action="store_true", help=f"write JSON, PNG and Markdown to {REPORTS.name}/")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args(given)
    everything = {"workload": list(WORKLOADS), "contenders": list(CONTENDERS), "rounds": 3, "seconds": 1.0, "load": 1.0}
    for name, value in (QUICK if asked.quick else everything).items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.rounds < 1 or asked.seconds <= 0 or asked.load < 0:
        parser.error("--rounds must be 1 or more, --seconds above 0, --load 0 or more")
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
    wrk.require_wrk()
    start = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    how = Asked(asked.rounds, asked.seconds, asked.load, pinning(), say)
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": describe(),
        "pinning": how.pinning.words,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "workloads": {},
        "cobatching": {},
    }
    for name in asked.workload:
        names = [one for one in WORKLOADS[name].contenders if one in asked.contenders]
        if names:
            results["workloads"][name] = workload(name, names, how)
    if not (asked.quick or asked.no_cobatching):
        say("in process: co-batching, and 16 heads against one")
        results["cobatching"] = cobatching(how)
    results = json.loads(json.dumps(results))  # keys of numbers become text, as a reader of the file has them
    print(markdown(results, "peers.png"))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.write:
        say(f"wrote {write(results, REPORTS).relative_to(ROOT)}")


def workload(name: str, names: Sequence[str], how: Asked) -> dict[str, Any]:
    """One workload's figures."""
    chosen = WORKLOADS[name]
    with tempfile.TemporaryDirectory(prefix="polyhead-peers-") as folder:
        how.say(f"{name}: exporting")
        material = make(chosen, Path(folder) / "material")
        standings, bare = measure(material, names, how, Path(folder))
    return {
        "about": chosen.about,
        "contenders": {one.name: one.content() for one in standings.values()},
        "bare": [asdict(one) for one in bare],
    }


def cobatching(how: Asked) -> dict[str, Any]:
    """The figures of `benchmarks.cobatching`, in a process of its own on one core."""
    with tempfile.TemporaryDirectory(prefix="polyhead-peers-") as folder:
        path = Path(folder) / "figures.json"
        command = ["taskset", "-c", str(how.pinning.one_core), sys.executable, "-m", "benchmarks.cobatching"]
        command += ["--rounds", str(COBATCHING_ROUNDS), "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            how.say(f"benchmarks.cobatching ended with {done.returncode}: {done.stderr.strip()[-400:]}")
            return {}
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return figures


if __name__ == "__main__":
    try:
        main()
    except wrk.WrkFailed as error:
        sys.exit(str(error))
