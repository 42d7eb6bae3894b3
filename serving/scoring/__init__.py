"""Batch scoring: any table in, every head's answers out, exactly once.

`score` is all that a program needs; see `polyhead.serving.scoring.scoring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyhead.serving.scoring.scoring import score

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    """The driver and its engines are imported when they are wanted: a worker process has no use for them."""
    if name == "score":
        from polyhead.serving.scoring.scoring import score

        return score
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
