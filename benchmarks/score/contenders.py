"""Who scores: the command line of each, and how its answers are read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.score.workloads import Workload

__all__ = ["CONTENDERS", "Contender", "Place"]

POLYHEAD = Path(sys.executable).with_name("polyhead")
TINY_UNIT = 4  # rows: so that a tiny table too starts every worker


@dataclass(frozen=True)
class Place:
    """One run.

    Attributes:
        folder: of the workload: `bundle`, `task.json`.
        table: to score.
        out: a new directory.
        processes: that compute, of one thread each.
        rows: of the table.
        tiny: only start-up counts.
    """

    workload: Workload
    folder: Path
    table: Path
    out: Path
    processes: int
    rows: int
    tiny: bool = False


@dataclass(frozen=True)
class Contender:
    """One way to score a table.

    Attributes:
        name: in the report.
        about: one line.
        module: of this package, that is run; Polyhead's own command line where None.
        flags: for Polyhead.
        times_itself: prints rows and seconds, for it has neither input nor output.
        workloads: that it runs; all where empty.
        suffix: of the table that it reads; the same rows lie there in several formats.
    """

    name: str
    about: str
    module: str | None = None
    flags: Sequence[str] = ()
    times_itself: bool = False
    workloads: Sequence[str] = ()
    suffix: str = ".parquet"

    def command(self, place: Place) -> list[str]:
        """What is run."""
        workload = place.workload
        if self.module is not None:
            command = [sys.executable, "-m", f"benchmarks.score.{self.module}", str(place.folder), str(place.table)]
            return [*command, str(place.out), "--processes", str(place.processes)]
        command = [str(POLYHEAD), "score", str(place.folder / "bundle")]
        command += [str(place.table.with_suffix(self.suffix)), str(place.out), "--json"]
        command += ["--workers", str(place.processes), "--threads", "1", "--columns", "id", *self.flags]
        command += ["--batch-rows", str(workload.batch_rows), "--batch-tokens", str(workload.batch_tokens)]
        units = TINY_UNIT if place.tiny else min(workload.unit_rows, place.rows // (2 * place.processes))
        return [*command, "--unit-rows", str(units)]


CONTENDERS: Mapping[str, Contender] = {
    one.name: one
    for one in (
        Contender(
            "bare",
            "the same engine, threads and batches over arrays that lie ready in memory, and nothing else",
            "bare",
            times_itself=True,
        ),
        Contender("polyhead", "polyhead score, local engine"),
        Contender("polyhead-arrow", "the same, of an Arrow file", workloads=("mlp",), suffix=".arrow"),
        Contender("polyhead-ray", "polyhead score --engine ray", flags=("--engine", "ray")),
        Contender(
            "polyhead-unsorted", "polyhead score --no-sort", flags=("--no-sort",), workloads=("skewed",)
        ),
        Contender("plain", "a loop over pyarrow's batches and one ONNX Runtime session of all threads", "plain"),
        Contender("ray-data", "Ray Data by its documentation: read_parquet, map_batches, write_parquet", "ray_data"),
    )
}  # fmt: skip
