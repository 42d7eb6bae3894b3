"""What a running server serves: one model's version, proven ready."""

from __future__ import annotations

from dataclasses import dataclass

from polyhead.serving.bundle import Bundle

__all__ = ["Served"]


@dataclass(frozen=True)
class Served:
    """One version of a model that is ready.

    Attributes:
        bundle: what is served.
        graph: its id.
        runtime, device: that run it.
        why: these were chosen.
        workers: processes.
        threads: of one forward pass.
    """

    bundle: Bundle
    graph: str
    runtime: str
    device: str
    why: str
    workers: int
    threads: int
