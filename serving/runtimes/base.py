"""What every runtime offers: a graph's files in, then arrays in, arrays out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from polyhead.serving.errors import DeviceUnavailable, RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Format, Graph

__all__ = ["AUTO", "FORMATS", "Runtime", "load", "resolve_device"]

# By runtime, each a module here: the graph format it reads.
FORMATS: dict[str, Format] = {
    "onnxruntime": "onnx",
    "torchscript": "torchscript",
    "program": "program",
    "aotinductor": "program",  # compiled from it, for one machine
}
# Where nothing was asked for and nothing measured: the first that the bundle has a graph for.
AUTO = ("onnxruntime", "torchscript", "program")


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


def load(runtime: str, graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> Runtime:
    """Load a graph into a runtime.

    Args:
        runtime: a key of `FORMATS`.
        graph: its entry in the manifest.
        files: the verified content of `graph.files`, by name.
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
    loaded: Runtime = module.load(graph, files, device, threads)
    return loaded
