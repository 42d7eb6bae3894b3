"""A plain loop, as one writes it in ten minutes: pyarrow's batches, one session, one writer, nothing beside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.score.session import Model

__all__ = ["main"]


def main() -> None:
    """Score the table into one file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, required=True)
    asked = parser.parse_args()
    model = Model(asked.folder, asked.processes)
    asked.out.mkdir(parents=True)
    writer: pq.ParquetWriter | None = None
    for batch in pq.ParquetFile(asked.table).iter_batches(model.batch_rows):
        answered = model.answers(_values(batch.column(model.column)))
        table = pa.table({"id": batch.column("id"), **{name: pa.array(column) for name, column in answered.items()}})
        if writer is None:
            writer = pq.ParquetWriter(asked.out / "answers.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _values(column: Any) -> Any:
    if pa.types.is_string(column.type):
        return column.to_pylist()
    return np.stack(column.to_numpy(zero_copy_only=False))


if __name__ == "__main__":
    main()
