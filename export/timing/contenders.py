"""Who is timed: every graph that holds all heads, in every runtime that reads it, on every device; and eager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyhead.serving.manifest import Manifest, Precision
from polyhead.serving.runtimes import base

__all__ = ["EAGER", "Contender", "NetworkPlace", "contenders", "devices"]

EAGER = "eager"


@dataclass(frozen=True)
class Contender:
    """A graph in a runtime on a device.

    Attributes:
        runtime: a key of `base.FORMATS`, or `eager`: the network itself, run by PyTorch.
        precision: of the arithmetic.
        device: as `base.resolve_device` returned it.
        graph: its id; None of the eager network.
    """

    runtime: str
    precision: Precision
    device: str
    graph: str | None = None

    @property
    def name(self) -> str:
        """What a table calls it beside its device: `onnxruntime fp16`."""
        return EAGER if self.graph is None else f"{self.runtime} {self.precision}"


@dataclass(frozen=True)
class NetworkPlace:
    """Where the network is that the bundle was made of: a training run, or a factory with weights and spec."""

    run: Path | None = None
    factory: str | None = None
    weights: Path | None = None
    spec: Path | None = None


def contenders(manifest: Manifest, places: Sequence[str], eager: bool) -> list[Contender]:
    """All of them, by device; the eager network first, since the others are measured by it.

    Args:
        manifest: the bundle's.
        places: devices, each as `base.resolve_device` returned it.
        eager: whether the network is at hand.
    """
    found = []
    for device in places:
        if eager:
            found.append(Contender(EAGER, "fp32", device))
        for graph in manifest.graphs:
            readers = [runtime for runtime, read in base.FORMATS.items() if read == graph.format]
            if graph.part == "fused":
                found += [Contender(runtime, graph.precision, device, graph.id) for runtime in readers]
    return found


def devices(asked: Sequence[str]) -> list[str]:
    """The devices asked for; where none is, the CPU, and the first GPU where there is one.

    Raises:
        DeviceUnavailable: one was asked for by name and is not there.
    """
    wanted = asked or ("cpu", "auto")
    return list(dict.fromkeys(base.resolve_device(device) for device in wanted))
