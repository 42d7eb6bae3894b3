"""Contenders in turn, each in processes of its own, on one table: rates, start-up, memory, and right or wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.contenders import ROOT
from benchmarks.score.checking import faults
from benchmarks.score.contenders import CONTENDERS, Place
from benchmarks.score.running import Failed, Ran, run
from benchmarks.score.workloads import Workload, copy_as_arrow, make_bundle, write_table

__all__ = ["Asked", "Standing", "memory", "prepared", "rounds"]

TINY = 8  # rows of the table that measures start-up


@dataclass(frozen=True)
class Asked:
    """How it is measured.

    Attributes:
        rounds: turns of each contender.
        processes: that compute, of one thread each; of the plain loop the threads.
        say: told what is going on.
    """

    rounds: int
    processes: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """One contender, one round.

    Attributes:
        rate: rows a second, without the start-up.
        startup: seconds that a table of eight rows takes; None where the contender times itself.
        seconds: of the whole command.
        peak: bytes of all its processes.
    """

    rate: float
    startup: float | None
    seconds: float
    peak: int


@dataclass
class Standing:
    """A contender's turns."""

    name: str
    about: str
    turns: list[Turn] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """As the report's JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Prepared:
    """A workload whose files are there."""

    workload: Workload
    folder: Path
    table: Path
    tiny: Path
    rows: int


def prepared(workload: Workload, rows: int, folder: Path, say: Callable[[str], None]) -> Prepared:
    """Export the model and write the tables."""
    say(f"{workload.name}: exporting")
    folder.mkdir(parents=True)
    make_bundle(workload, folder)
    say(f"{workload.name}: writing {rows:,} rows")
    tiny = write_table(workload, TINY, folder / "tiny.parquet")
    table = write_table(workload, rows, folder / "table.parquet")
    for path in (tiny, table) if workload.arrow else ():
        copy_as_arrow(path)
    return Prepared(workload, folder, table, tiny, rows)


def rounds(made: Prepared, names: Sequence[str], asked: Asked) -> dict[str, Standing]:
    """Every contender in turn, the order turned by one each round; answers are checked in the first."""
    chosen = [name for name in names if made.workload.name in (CONTENDERS[name].workloads or (made.workload.name,))]
    standings = {name: Standing(name, CONTENDERS[name].about) for name in chosen}
    for number in range(asked.rounds):
        shift = number % len(chosen)
        for name in (*chosen[shift:], *chosen[:shift]):
            if not standings[name].faults:
                _turn(made, standings[name], asked, check=number == 0)
    return standings


def _turn(made: Prepared, standing: Standing, asked: Asked, check: bool) -> None:
    contender, out = CONTENDERS[standing.name], made.folder / "out"
    try:
        if contender.times_itself:
            ran = _ran(made, standing.name, asked, out)
            turn = Turn(ran.said["rows"] / ran.said["seconds"], None, ran.seconds, ran.peak)
        else:
            startup = _ran(made, standing.name, asked, out, tiny=True).seconds
            ran = _ran(made, standing.name, asked, out)
            turn = Turn((made.rows - TINY) / max(ran.seconds - startup, 1e-9), startup, ran.seconds, ran.peak)
            if check:
                standing.faults += faults(made.folder, made.table, out)
    except Failed as error:
        standing.faults.append(str(error))
        asked.say(f"{made.workload.name}: {standing.name} FAILED: {error}")
        return
    standing.turns.append(turn)
    wrong = f"; WRONG: {standing.faults[0]}" if standing.faults else ""
    asked.say(f"{made.workload.name}: {standing.name} {turn.rate:,.0f} rows/s, {turn.peak / 1e6:,.0f} MB{wrong}")


def _ran(made: Prepared, name: str, asked: Asked, out: Path, tiny: bool = False) -> Ran:
    shutil.rmtree(out, ignore_errors=True)
    table, rows = (made.tiny, TINY) if tiny else (made.table, made.rows)
    place = Place(made.workload, made.folder, table, out, asked.processes, rows, tiny)
    return run(CONTENDERS[name].command(place), ROOT)


def memory(made: Prepared, asked: Asked) -> dict[str, float]:
    """Peak bytes of `polyhead score` by rows: of a tenth of the table, and of all of it; medians over rounds."""
    short = write_table(made.workload, made.rows // 10, made.folder / "tenth.parquet")
    peaks: Mapping[int, list[int]] = {made.rows // 10: [], made.rows: []}
    for _ in range(asked.rounds):
        for rows, table in ((made.rows // 10, short), (made.rows, made.table)):
            out = made.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            place = Place(made.workload, made.folder, table, out, asked.processes, rows)
            peaks[rows].append(run(CONTENDERS["polyhead"].command(place), ROOT).peak)
            asked.say(f"{made.workload.name}: {rows:,} rows in {peaks[rows][-1] / 1e6:,.0f} MB")
    return {str(rows): median(found) for rows, found in peaks.items()}
