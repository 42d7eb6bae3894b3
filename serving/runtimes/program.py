"""Programs of torch.export (.pt2), run by PyTorch operation by operation."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping

import torch

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.tensors import TensorRuntime, exact

__all__ = ["load"]


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> TensorRuntime:
    """Load a program; see `base.load`."""
    exact(threads)
    _require_no_pickle(graph, files[graph.file])
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
    return TensorRuntime("program", program.module(check_guards=False), graph, device)


def _require_no_pickle(graph: Graph, data: bytes) -> None:
    """PyTorch would unpickle what an archive says is pickled, and so run whatever is in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickled = [
                name
                for name in archive.namelist()
                if name.endswith("_config.json") and b'"use_pickle": true' in archive.read(name)
            ]
    except zipfile.BadZipFile:
        return  # PyTorch says what it is not
    if pickled:
        raise RuntimeUnavailable(f"{graph.file} holds pickled weights ({pickled[0]}): export it again")
