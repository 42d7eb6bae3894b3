"""BentoML: a batchable API, as its documentation shows it. It reads JSON bodies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from work import Work, answers

BATCH, DELAY = int(os.environ["PEER_BATCH"]), int(os.environ["PEER_DELAY"])


@bentoml.service(workers=int(os.environ["PEER_WORKERS"]), metrics={"enabled": False})
class Peer:
    """One service; its API takes `{"instances": [...]}`, and BentoML gathers the instances of many requests."""

    def __init__(self) -> None:
        self.work = Work(Path(os.environ["PEER_FOLDER"]), int(os.environ["PEER_THREADS"]))

    @bentoml.api(route="/batch", batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
    def rows(self, instances: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One batch of rows."""
        work = self.work
        rows = np.array([row[work.task["input"]] for row in instances], dtype=np.float32)
        outputs = work.session.run([name for name, _ in work.heads], {work.task["arrays"][0]: rows})
        found = answers(work.heads, outputs)
        for answer in found:
            for part in answer.values():
                for key, value in part.items():
                    if isinstance(value, np.ndarray):
                        part[key] = value.tolist()
        return found
