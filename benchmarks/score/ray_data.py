"""Ray Data as its documentation shows batch inference: read_parquet, map_batches over actors, write_parquet."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext

from benchmarks.score.session import Model

__all__ = ["main"]


class Predictor:
    """An actor: one session of one thread."""

    def __init__(self, folder: str) -> None:
        self.model = Model(Path(folder), 1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score a batch of columns."""
        values = batch[self.model.column]
        if values.dtype == object and not isinstance(values[0], str):
            values = np.stack(values)
        return {"id": batch["id"], **self.model.answers(values)}


def main() -> None:
    """Score the table into a directory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, required=True)
    asked = parser.parse_args()
    ray.init(
        include_dashboard=False, num_cpus=asked.processes, _node_ip_address="127.0.0.1", logging_level=logging.ERROR
    )
    DataContext.get_current().enable_progress_bars = False
    rows = Model(asked.folder, 1).batch_rows
    (
        ray.data.read_parquet(str(asked.table))
        .map_batches(
            Predictor,
            fn_constructor_args=[str(asked.folder)],
            batch_size=rows,
            num_cpus=0.5,  # with whole cores the actors would leave none to the tasks that read and write
            compute=ActorPoolStrategy(size=asked.processes),
        )
        .write_parquet(str(asked.out))
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
