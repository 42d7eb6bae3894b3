"""Whether a contender's output is right: every row once, and the answers of the graph itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.score.session import Model

__all__ = ["faults"]

CHECKED = 2_000  # rows, spread over the table, whose answers are compared
CLOSE = 2e-3  # of numbers: batches of other sizes are summed in another order
AGREE = 0.999  # of labels: decisions as near as rounding may fall either way


def faults(folder: Path, table: Path, out: Path) -> list[str]:
    """What is wrong with the answers in a directory; nothing where all is right."""
    total = pq.ParquetFile(table).metadata.num_rows
    files = sorted(path for path in out.rglob("*.parquet") if not any(part[0] in "_." for part in path.parts[-2:]))
    ids = np.concatenate([pq.read_table(path, columns=["id"]).column(0).to_numpy() for path in files])
    if len(ids) != total or not np.array_equal(np.sort(ids), np.arange(total)):
        return [f"{len(ids)} rows came out, {len(np.unique(ids))} different ones, of {total}"]
    wanted = np.unique(np.linspace(0, total - 1, CHECKED).astype(np.int64))
    model = Model(folder, 2)
    expected = _expected(model, table, wanted)
    found = _found(files, wanted)
    wrong = []
    for name, head in model.heads.items():
        if head["kind"] not in COLUMNS:
            continue
        got = COLUMNS[head["kind"]](found, name)
        wrong += _compared(name, head["kind"], expected[name], got)
    return wrong


def _expected(model: Model, table: Path, wanted: Any) -> dict[str, list[Any]]:
    """The graph's own answers, of the rows that are looked at."""
    answers: dict[str, list[Any]] = {name: [] for name in model.heads}
    first = 0
    for batch in pq.ParquetFile(table).iter_batches(8192, columns=[model.column]):
        own = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
        first += len(batch)
        values = batch.column(0).take(pa.array(own)).to_pylist()
        for start in range(0, len(values), 64):
            for name, column in model.answers(values[start : start + 64]).items():
                answers[name].extend(np.asarray(column).tolist() if not isinstance(column, list) else column)
    return answers


def _found(files: list[Path], wanted: Any) -> dict[str, list[Any]]:
    """By column, of those rows, in their order."""
    tables = []
    for path in files:
        table = pq.read_table(path)
        tables.append(table.filter(pa.array(np.isin(table.column("id").to_numpy(), wanted))))
    table = pa.concat_tables([one.replace_schema_metadata(None) for one in tables], promote_options="permissive")
    columns: dict[str, list[Any]] = table.sort_by("id").to_pydict()
    return columns


def _field(field: str) -> Any:
    """Polyhead's answers are structs; the others' are bare."""
    return lambda found, name: [row[field] if isinstance(row, dict) else row for row in found[name]]


COLUMNS = {
    "classification": _field("label"),
    "multilabel": _field("labels"),
    "regression": _field("value"),
    "embedding": _field("vector"),
}


def _compared(name: str, kind: str, expected: list[Any], got: list[Any]) -> list[str]:
    if len(expected) != len(got):
        return [f"head {name}: {len(got)} answers, expected {len(expected)}"]
    if kind in ("classification", "multilabel"):
        same = float(np.mean([left == right for left, right in zip(expected, got, strict=True)]))
        return [] if same >= AGREE else [f"head {name}: {same:.2%} of the labels are right"]
    distance = float(np.abs(np.asarray(expected, np.float64) - np.asarray(got, np.float64)).max())
    return [] if distance <= CLOSE else [f"head {name}: differs by {distance:.2g}"]
