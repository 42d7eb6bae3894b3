"""What every runtime offers, and how one is chosen: graph bytes in, then arrays in, arrays out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

from polyhead.serving.bundle import Graph
from polyhead.serving.errors import DeviceUnavailable, RuntimeUnavailable
from polyhead.serving.golden import Array

__all__ = ["FORMATS", "Runtime", "load", "resolve_device"]

# By runtime: the graph format it reads, and the module that holds it. The first that has a graph is `auto`.
FORMATS = {"onnxruntime": "onnx", "torchscript": "torchscript"}


class Runtime(Protocol):
    """A loaded graph."""

    name: str
    device: str  # what it really runs on: `cpu` or `cuda:N`

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass.

        Args:
            inputs: by the graph's position, each `[batch, …]` and contiguous.
            outputs: names of the graph's outputs, the only ones that are copied off the device.
        """
        ...


def resolve_device(device: str) -> str:
    """`auto` to the first GPU where there is one, else the CPU; a device named is returned as `cpu` or `cuda:N`.

    Raises:
        DeviceUnavailable: a GPU was asked for by name and is not there. Nothing falls back in silence.
    """
    if device == "cpu":
        return device
    torch = importlib.import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda:0" if count else "cpu"
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise DeviceUnavailable(
            f"device {device!r} is not there (PyTorch sees {count} CUDA devices): use --device cpu or auto"
        )
    return f"cuda:{index}"


def load(runtime: str, graph: Graph, data: bytes, device: str, threads: int) -> Runtime:
    """Load a graph's bytes into a runtime.

    Args:
        runtime: a key of `FORMATS`.
        graph: its entry in the manifest.
        data: the verified bytes.
        device: as `resolve_device` returned it.
        threads: of one forward pass on the CPU.

    Raises:
        RuntimeUnavailable: the runtime is not installed, or refuses the graph.
    """
    try:
        module = importlib.import_module(f"polyhead.serving.runtimes.{runtime}")
    except ImportError as error:
        raise RuntimeUnavailable(
            f"runtime {runtime!r} is not installed ({error.name} is missing): pip install 'polyhead[serve]'"
        ) from None
    loaded: Runtime = module.load(graph, data, device, threads)
    return loaded
