"""What a worker is told first, and in which environment it runs: the same from every engine."""

from __future__ import annotations

from typing import Any

from polyhead.serving.scoring.job import Job
from polyhead.serving.scoring.settings import ScoreSettings

__all__ = ["environment", "hello"]

# Each counts the threads of one library: numpy's and PyTorch's, and those of the tokenizers.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def hello(job: Job, settings: ScoreSettings, device: str) -> dict[str, Any]:
    """The first line of a worker on one device.

    Args:
        settings: of this run; those that decide the output are the job's.
        device: `cpu` or `cuda:N`.
    """
    free = {"decode_threads": settings.decode_threads}
    chosen = {"runtime": job.chosen["runtime"], "precision": job.chosen["precision"], "device": device}
    own = job.settings.model_copy(update={**chosen, **free})
    return {"job": job.plain(), "destination": job.destination, "settings": own.model_dump(mode="json")}


def environment(threads: int) -> dict[str, str]:
    """Variables of a worker. OpenMP's threads do not spin long; see `polyhead.cli.main`."""
    return {**dict.fromkeys(THREADS, str(threads)), "GOMP_SPINCOUNT": "10000", "ORT_DISABLE_TELEMETRY": "1"}
