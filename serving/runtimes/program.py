"""Programs of torch.export (.pt2), run by PyTorch operation by operation."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.torchscript import as_tensor

__all__ = ["ProgramRuntime", "load"]


class ProgramRuntime:
    """A program as a module."""

    name = "program"

    def __init__(self, module: Any, graph: Graph, device: str) -> None:
        self._module = module
        self._positions = {name: index for index, name in enumerate(graph.outputs)}
        self._device = torch.device(device)
        self.device = device

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`."""
        with torch.inference_mode():
            results = self._module(*(as_tensor(array).to(self._device) for array in inputs))
            return [results[self._positions[name]].cpu().numpy() for name in outputs]


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> ProgramRuntime:
    """Load a program; see `base.load`."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\b.*")
            program = torch.export.load(io.BytesIO(files[graph.file]))
    except Exception as error:  # noqa: BLE001 - zip, schema and version faults each raise another class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeUnavailable(f"torch.export cannot load {graph.file}: {lines[0]}") from None
    if device != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return ProgramRuntime(program.module(check_guards=False), graph, device)
