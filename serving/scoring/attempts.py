"""Where workers write: a file for every attempt at a unit, of which a receipt names one."""

from __future__ import annotations

from polyhead.serving.scoring.job import INNER

__all__ = ["ATTEMPTS", "attempt_name"]

ATTEMPTS = f"{INNER}/attempts"


def attempt_name(ordinal: int, attempt: str, kind: str = "") -> str:
    """The name of a file that a worker writes: `_polyhead/attempts/00000042/<attempt>.parquet`."""
    return f"{ATTEMPTS}/{ordinal:08d}/{attempt}{kind}.parquet"
