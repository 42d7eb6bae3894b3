"""A bundle and what was asked for, to an engine that has proven itself: the same for the server and for scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen, choose
from polyhead.serving.engine import Engine
from polyhead.serving.plan import NONE
from polyhead.serving.runtimes import base

__all__ = ["Loaded", "load_engine"]


@runtime_checkable
class _Recordable(Protocol):
    """A runtime that may record passes; its own class would bring PyTorch along."""

    buckets: object | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine that reproduced the golden samples.

    Attributes:
        engine: loaded.
        chosen: its graph and runtime, and why these.
        device: that it runs on, `cpu` or `cuda:N`.
    """

    engine: Engine
    chosen: Chosen
    device: str


def load_engine(
    bundle: Bundle,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    apart: str = NONE,
    *,
    record: bool = True,
) -> Loaded:
    """Choose a graph, load it, and have it answer the golden samples.

    Args:
        bundle: opened.
        runtime, device, precision: as settings name them; `auto` where nothing was asked for.
        threads: of one forward pass.
        apart: heads that run on the rows that ask for them alone; see `polyhead.serving.plan`.
        record: on a GPU, replay passes that were seen before. They are faster and may round otherwise, so that an
            answer's last bits depend on what was asked before.

    Raises:
        DeviceUnavailable: the device was asked for by name and is not there.
        RuntimeUnavailable: the bundle has no such graph, or its runtime is not installed.
        GoldenMismatch: its answers are not the recorded ones.
    """
    device = base.resolve_device(device)
    chosen = choose(bundle, runtime, device, precision)
    engine = Engine.of(bundle, chosen, device, threads, apart)
    if not record and isinstance(engine.runtime, _Recordable):
        engine.runtime.buckets = None
    engine.replay_golden()
    return Loaded(engine, chosen, device)
