"""The ideal: the same engine over arrays that lie ready, in as many processes, at once, with the same batches.

Nothing is read, decoded, answered or written while the clock runs. Prints rows and seconds, of the slowest process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.request import Query
from polyhead.serving.texts import Texts

__all__ = ["main"]

READY = 131_072  # rows of numbers that lie in memory, gone through again and again: far more than a cache holds
WINDOW = 16_384  # texts that are sorted by length together, as scoring does
STEP = 8  # lengths of texts are filled up to a multiple of it, as scoring does


def main() -> None:
    """Start the processes, let them go at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path, help="not used: nothing is written")
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--share", type=int, help="of the processes, this one")
    asked = parser.parse_args()
    if asked.share is not None:
        _share(asked)
        return
    command = [sys.executable, "-m", "benchmarks.score.bare", *sys.argv[1:]]
    started = [
        subprocess.Popen([*command, "--share", str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(asked.processes)
    ]
    for process in started:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            sys.exit(f"a process of the bare loop ended with {process.wait()}")
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in started]
    print(json.dumps({"rows": sum(one["rows"] for one in found), "seconds": max(one["seconds"] for one in found)}))


def _share(asked: argparse.Namespace) -> None:
    """Every n-th window of the table: load, wait for the word, run, tell."""
    bundle = Bundle.open(asked.folder / "bundle")
    engine = Engine.load(bundle, "auto", "cpu", threads=1)
    task = json.loads((asked.folder / "task.json").read_text(encoding="utf-8"))
    total = pq.ParquetFile(asked.table).metadata.num_rows
    rows = total // asked.processes + (asked.share < total % asked.processes)
    batches = _texts(bundle, task, asked, total) if task["text"] else _numbers(task, asked.table, rows)
    for batch in batches[:2]:
        engine.run(batch)
    print("ready", flush=True)
    sys.stdin.readline()
    start, done, index = time.perf_counter(), 0, 0
    while done < rows:
        batch = batches[index % len(batches)]
        engine.run(batch)
        done += len(next(iter(batch.values())))
        index += 1
    print(json.dumps({"rows": done, "seconds": time.perf_counter() - start}), flush=True)


def _numbers(task: dict[str, Any], table: Path, rows: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    (array,) = task["arrays"]
    for batch in pq.ParquetFile(table).iter_batches(task["batch_rows"], columns=[task["column"]]):
        if len(found) * task["batch_rows"] >= min(rows, READY):
            break
        values = batch.column(0)
        found.append({array: np.ascontiguousarray(values.flatten().to_numpy().reshape(len(values), -1))})
    return found


def _texts(bundle: Bundle, task: dict[str, Any], asked: argparse.Namespace, total: int) -> list[dict[str, Any]]:
    texts = pq.read_table(asked.table, columns=[task["column"]]).column(0)
    tokenizer, found = Texts.of(bundle), []
    windows = range(0, total, min(WINDOW, -(-total // asked.processes)))
    for number, start in enumerate(windows):
        if number % asked.processes != asked.share:
            continue
        values = texts.slice(start, min(WINDOW, -(-total // asked.processes))).to_pylist()
        encoded = tokenizer.encode(Query(len(values), {task["column"]: values}, ())).inputs[task["column"]]
        ids = sorted([one.ids for one in encoded], key=len)  # type: ignore[union-attr]
        found += _cut(ids, task)
    return found


def _cut(rows: list[Any], task: dict[str, Any]) -> list[dict[str, Any]]:
    """Texts, the shortest first, as batches of at most so many rows and tokens."""
    batches: list[list[Any]] = [[]]
    for ids in rows:
        length = -(-len(ids) // STEP) * STEP
        full = len(batches[-1]) >= task["batch_rows"] or (len(batches[-1]) + 1) * length > task["batch_tokens"]
        if batches[-1] and full:
            batches.append([])
        batches[-1].append(ids)
    return [_padded(batch, task) for batch in batches if batch]


def _padded(rows: list[Any], task: dict[str, Any]) -> dict[str, Any]:
    length = min(task["max_length"], -(-len(rows[-1]) // STEP) * STEP)
    ids, mask = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
    for row, own in enumerate(rows):
        ids[row, : len(own)] = own
        mask[row, : len(own)] = 1
    return dict(zip(task["arrays"], (ids, mask), strict=True))


if __name__ == "__main__":
    main()
