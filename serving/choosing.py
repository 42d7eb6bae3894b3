"""Which graph of a bundle is run, and by which runtime: what was asked for, what was measured, else fp32."""

from __future__ import annotations

from dataclasses import dataclass

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import base

__all__ = ["Chosen", "choose"]


@dataclass(frozen=True)
class Chosen:
    """A graph, the runtime for it, and why these."""

    graph: Graph
    runtime: str
    why: str


def choose(bundle: Bundle, runtime: str = "auto", device: str = "cpu", precision: str = "auto") -> Chosen:
    """Choose a graph that holds trunk and all heads.

    Args:
        bundle: an opened bundle.
        runtime: a key of `base.FORMATS`, or `auto`: what `polyhead bench --write` found fastest on this kind of device,
            else the first that the bundle has a graph for.
        device: as `base.resolve_device` returned it.
        precision: of the graph, or `auto`: what was measured with the runtime, else fp32.

    Raises:
        RuntimeUnavailable: the bundle has no such graph.
    """
    graphs = [graph for graph in bundle.manifest.graphs if graph.part == "fused"]
    kind = device.partition(":")[0]
    tuning = bundle.tuning()
    choice = None if tuning is None else tuning.devices.get(kind)  # type: ignore[call-overload]
    if choice is not None and runtime == precision == "auto":
        graph = bundle.manifest.graph(choice.graph)
        return Chosen(graph, choice.runtime, f"the fastest on {kind} by polyhead bench ({choice.machine})")
    wanted = "fp32" if precision == "auto" else precision
    for name in base.AUTO if runtime == "auto" else (runtime,):
        for graph in graphs:
            if graph.format == base.FORMATS.get(name) and graph.precision == wanted:
                return Chosen(graph, name, "as asked" if runtime == name else "the first runtime with a graph")
    found = ", ".join(f"{graph.format} {graph.precision}" for graph in graphs)
    raise RuntimeUnavailable(
        f"bundle {bundle.title} has no graph of {wanted} for runtime {runtime!r} (it has: {found}): "
        "ask for one of these, or export the bundle with --format and --precision"
    )
