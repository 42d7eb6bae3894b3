"""The benchmark of batch scoring: right answers are told from wrong ones, and figures from their absence."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.peers.contenders import ROOT
from benchmarks.score.__main__ import arguments
from benchmarks.score.checking import faults
from benchmarks.score.contenders import CONTENDERS, Place
from benchmarks.score.report import markdown, write
from benchmarks.score.rounds import Asked, Prepared, rounds
from benchmarks.score.running import Failed, run
from benchmarks.score.targets import ratio, targets
from benchmarks.score.workloads import WORKLOADS, copy_as_arrow, make_bundle, write_table


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Prepared:
    workload = dataclasses.replace(WORKLOADS["mlp"], unit_rows=150)
    folder = tmp_path_factory.mktemp("score")
    make_bundle(workload, folder)
    tables = [write_table(workload, rows, folder / f"{rows}.parquet") for rows in (600, 8)]
    return Prepared(workload, folder, *tables, 600)


@pytest.fixture(scope="module")
def standings(made):
    said: list[str] = []
    found = rounds(made, ["bare", "polyhead", "plain"], Asked(1, 2, said.append))
    assert len(said) == 3
    return found


def test_contenders_are_measured_and_right(standings):
    assert list(standings) == ["bare", "polyhead", "plain"]
    for one in standings.values():
        assert one.faults == []
        (turn,) = one.turns
        assert turn.rate > 0
        assert turn.peak > 30e6  # bytes: no Python process with numpy is smaller
    assert standings["bare"].turns[0].startup is None
    assert standings["plain"].turns[0].startup > 0


def test_a_longer_table_begins_with_the_shorter_one(made):
    assert pq.read_table(made.tiny).column("id").to_pylist() == list(range(8))
    longer = write_table(made.workload, 700, made.folder / "longer.parquet")
    assert pq.ParquetFile(longer).metadata.num_rows == 700
    first = next(pq.ParquetFile(longer).iter_batches(4)).column(1).flatten().to_numpy()
    again = made.workload.values(0, 700)[:4].flatten().to_numpy()
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda t: t.slice(1), "599 rows came out, 599 different ones, of 600"),
        (lambda t: pa.concat_tables([t.slice(0, 599), t.slice(0, 1)]), "600 rows came out, 599 different ones"),
        (lambda t: t.set_column(1, "intent", pa.array(["intent 0"] * 600)), "head intent: "),
        (lambda t: t.set_column(3, "value", pa.array(np.zeros(600, np.float32))), "head value: differs by"),
    ],
)
def test_wrong_output_is_found_out(made, standings, tmp_path, harm, words):
    assert list(standings)[-1] == "plain"  # whose output lies there still
    out = Path(shutil.copytree(made.folder / "out", tmp_path / "out"))
    table = pq.read_table(out / "answers.parquet")
    assert table.column_names == ["id", "intent", "tags", "value"]
    assert faults(made.folder, made.table, out) == []
    pq.write_table(harm(table), out / "answers.parquet")
    (found,) = faults(made.folder, made.table, out)
    assert words in found


def test_a_command_that_fails_says_why():
    with pytest.raises(Failed, match="ended with 3: no luck"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('no luck'); sys.exit(3)"], ROOT)


def test_an_arrow_file_has_the_same_rows(made):
    copy_as_arrow(made.tiny)
    with pa.ipc.open_file(made.tiny.with_suffix(".arrow")) as reader:
        assert reader.read_all().equals(pq.read_table(made.tiny))
    place = Place(made.workload, made.folder, made.tiny, made.folder / "out", 1, 8)
    assert str(made.tiny.with_suffix(".arrow")) in CONTENDERS["polyhead-arrow"].command(place)
    assert str(made.tiny) in CONTENDERS["polyhead"].command(place)


def results() -> dict[str, object]:
    def row(name: str, *rates: float, faults: tuple[str, ...] = ()) -> dict[str, object]:
        turns = [{"rate": rate, "startup": 1.5, "seconds": 9.0, "peak": 4e8} for rate in rates]
        return {"name": name, "about": f"about {name}", "turns": turns, "faults": list(faults)}

    return {
        "date": "2026-01-02",
        "machine": {"processor": "a", "cores": 2, "system": "b", "python": "3"},
        "command": "python -m benchmarks.score",
        "processes": 2,
        "workloads": {
            "mlp": {
                "about": "numbers", "rows": 1000, "megabytes": 3.0, "memory": {"100": 1e8, "1000": 1.2e8},
                "contenders": {
                    "bare": row("bare", 100, 200, 300), "polyhead": row("polyhead", 80, 100, 270),
                    "plain": row("plain", 5, faults=("wrong",)),
                },
            },
        },
    }  # fmt: skip


def test_ratios_are_taken_round_by_round():
    assert ratio(results(), "mlp", "polyhead", "bare") == 0.8
    assert ratio(results(), "mlp", "plain", "bare") is None
    assert ratio(results(), "smarthome", "polyhead", "bare") is None
    met = {target.what: target.met for target in targets(results())}
    assert met["mlp, Parquet: Polyhead over the bare loop"] is True
    assert met["mlp: memory for ten times the rows"] is False
    assert met["skewed: sorted over unsorted"] is None


def test_the_report_has_every_figure(tmp_path):
    page = markdown(results(), "x.png")
    assert "| mlp, Parquet: Polyhead over the bare loop | ≥ 0.6 | 0.80 | met |" in page
    assert "| mlp: memory for ten times the rows | ≤ 1.1 | 1.20 | **missed** |" in page
    assert "| polyhead | 100 | 0.50 | 80, 270 | 1.5 | 9.0 | 400 |" in page
    assert "- plain **failed**: wrong" in page
    path = write(results(), tmp_path)
    assert path == tmp_path / "2026-01-02-score.md"
    assert (tmp_path / "2026-01-02-score.png").stat().st_size > 5000


def test_the_command_line_knows_what_there_is():
    asked = arguments(["--quick", "--workload", "mlp,skewed", "--contenders", "bare"])
    assert (asked.workload, asked.contenders, asked.rounds, asked.no_memory) == (["mlp", "skewed"], ["bare"], 1, True)
    with pytest.raises(SystemExit):
        arguments(["--workload", "resnet"])
