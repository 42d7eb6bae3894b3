"""What every runtime offers: a graph's files in, then arrays in, arrays out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from polyhead.serving.errors import DeviceUnavailable, RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Format, Graph

__all__ = ["AUTO", "FORMATS", "Runtime", "fetched", "load", "mode", "resolve_device"]

# By runtime, each a module here: the graph format it reads.
FORMATS: dict[str, Format] = {
    "onnxruntime": "onnx",
    "torchscript": "torchscript",
    "program": "program",
    "aotinductor": "program",  # compiled from it, for one machine
}
# Where nothing was asked for and nothing measured: the first that the bundle has a graph for.
AUTO = ("onnxruntime", "torchscript", "program")
# What the drivers of GPUs make on Linux: NVIDIA's, those of its small boards, of WSL, AMD's.
GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")


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
    if device == "auto" and not _may_have_gpu():
        return "cpu"
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


def _may_have_gpu() -> bool:
    """Whether it is worth asking PyTorch, whose import takes over a second."""
    return sys.platform != "linux" or any(any(Path("/dev").glob(pattern)) for pattern in GPU_FILES)


def fetched(graph: Graph) -> tuple[str, ...]:
    """The outputs that a server asks for: heads that lie in the packed one come with it."""
    packed = () if graph.packed is None else graph.packed.columns
    return tuple(name for name in graph.outputs if name not in packed)


@runtime_checkable
class _Stated(Protocol):
    mode: str
    why: str


def mode(runtime: object) -> str:
    """How a runtime's passes run, in words: `cuda graphs`, or `eager` with the reason where it is on a GPU."""
    if not isinstance(runtime, _Stated):
        return "eager"
    return f"{runtime.mode} ({runtime.why})" if runtime.why else runtime.mode


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
