"""The bare forward pass on one core: the same graph in ONNX Runtime with one thread, on finished arrays."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.peers.material import Material

__all__ = ["Bare", "batch_arrays", "forward"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
FULL = 64  # requests of a full batch
BATCHES = 8  # different ones of each size
LEAST_SECONDS = 0.6


@dataclass(frozen=True)
class Bare:
    """Seconds of one forward pass, by requests in the batch; the mean over batches as they come."""

    seconds: Mapping[float, float]

    def rate(self, batch: float) -> float:
        """Requests a second at a batch size that was measured."""
        return batch / self.seconds[batch]


def forward(material: Material, sizes: Collection[float], factor: float, core: int) -> Bare:
    """Time the bare forward pass at batches of one, of these sizes and full, on one core.

    Args:
        material: of the workload.
        sizes: mean batch sizes that arose; one that is not whole is taken between its two neighbours.
        factor: on how long each is measured.
        core: that it runs on.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(material.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        whole = sorted({1, FULL, *(int(size) for size in sizes), *(int(size) + 1 for size in sizes)})
        timed = {size: _seconds(session, material, size, LEAST_SECONDS * factor) for size in whole}
    finally:
        os.sched_setaffinity(0, cores)
    found: dict[float, float] = {float(size): timed[size] for size in (1, FULL)}
    for size in sizes:
        low = int(size)
        found[size] = timed[low] + (size - low) * (timed[low + 1] - timed[low])
    return Bare(found)


def _seconds(session: onnxruntime.InferenceSession, material: Material, size: int, least: float) -> float:
    count = len(material.arrays)
    batches = [
        batch_arrays([material.arrays[(start * size + i) % count] for i in range(size)]) for start in range(BATCHES)
    ]
    session.run(None, dict(batches[0]))
    passes, start = 0, time.perf_counter()
    while time.perf_counter() - start < least or passes % BATCHES:
        session.run(None, dict(batches[passes % BATCHES]))
        passes += 1
        if passes >= 2 and time.perf_counter() - start > 4 * least:  # one pass takes long
            break
    return (time.perf_counter() - start) / passes


def batch_arrays(rows: Sequence[Arrays]) -> dict[str, np.ndarray[Any, Any]]:
    """Rows to one batch; texts are filled up with zeros to the longest."""
    result = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        if parts[0].ndim == 2 and len({part.shape[1] for part in parts}) > 1:
            longest = max(part.shape[1] for part in parts)
            parts = [np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts]
        result[name] = np.concatenate(parts)
    return result
