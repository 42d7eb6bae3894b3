"""Programs compiled for this very machine by AOTInductor: a cache that `polyhead export --compile` makes.

A compiled program is machine code for one processor (or GPU) and one version of PyTorch. It is never the only copy: it
lies in the user's cache, under the hash of the program that it was made of, and is made again where anything changed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from collections.abc import Mapping
from pathlib import Path

import torch

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.tensors import TensorRuntime, exact

__all__ = ["cached", "load"]

FILE = "program.pt2"


def cached(program: bytes, device: str) -> Path:
    """Where the compiled form of a program lies on this machine, whether it is there or not.

    Args:
        program: the content of a .pt2 file.
        device: as `base.resolve_device` returned it.
    """
    kind = device.partition(":")[0]
    processor = torch.cuda.get_device_name(device) if kind == "cuda" else _processor()
    about = "\n".join((hashlib.sha256(program).hexdigest(), torch.__version__, kind, processor))
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "polyhead" / "aotinductor" / hashlib.sha256(about.encode()).hexdigest()[:32] / FILE


def _processor() -> str:
    """What decides which instructions may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {flags}"


def load(graph: Graph, files: Mapping[str, bytes], device: str, threads: int) -> TensorRuntime:
    """Load the compiled form of a program; see `base.load`.

    Raises:
        RuntimeUnavailable: it was not compiled here, or somebody else could have written it.
    """
    exact(threads)
    path = cached(files[graph.file], device)
    if not path.is_file():
        raise RuntimeUnavailable(
            f"{graph.file} is not compiled for this machine and PyTorch {torch.__version__}: "
            "polyhead export --compile does it, or take another --runtime"
        )
    for place in (path, path.parent):
        status = place.lstat()
        if (
            status.st_uid != os.getuid()
            or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            or stat.S_ISLNK(status.st_mode)
        ):
            raise RuntimeUnavailable(
                f"{place} may have been written by somebody else, and it holds machine code: "
                "remove it, and compile again with polyhead export --compile"
            )
    try:
        model = torch._inductor.aoti_load_package(str(path))
    except Exception as error:  # noqa: BLE001 - a damaged package raises whatever its parts raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeUnavailable(f"{path} cannot be loaded ({lines[0]}): remove it, and compile again") from None
    return TensorRuntime("aotinductor", model, graph, device, "a compiled program starts its few kernels by itself")
