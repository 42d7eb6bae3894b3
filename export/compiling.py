"""A bundle's program compiled by AOTInductor for this very machine, into the user's cache."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

import torch

from polyhead.export.errors import ExportError
from polyhead.export.quiet import quiet
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import choose
from polyhead.serving.engine import Engine
from polyhead.serving.runtimes import base
from polyhead.serving.runtimes.aotinductor import cached

__all__ = ["compile_program"]

COMPILERS = ("g++", "clang++", "c++")


def compile_program(bundle: Bundle, device: str = "auto") -> Path:
    """Compile the fp32 program of a bundle, and replay the golden samples through what came out.

    Args:
        bundle: one with a graph of format program; it is not changed.
        device: where it will run: auto, cpu, cuda or cuda:N.

    Returns:
        The compiled file, in the cache.

    Raises:
        RuntimeUnavailable: the bundle has no program.
        ExportError: there is no C++ compiler, or it fails.
        GoldenMismatch: what came out computes something else; it is removed again.
    """
    device = base.resolve_device(device)
    chosen = choose(bundle, "aotinductor", device)
    data = bundle.read(chosen.graph.file)
    path = cached(data, device)
    compiler = os.environ.get("CXX")
    if compiler is None and not any(shutil.which(name) for name in COMPILERS):
        raise ExportError(
            "compiling needs a C++ compiler, and there is none on PATH: install g++, or name one in the variable CXX"
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)
    with tempfile.TemporaryDirectory(prefix=".compiling.", dir=path.parent) as folder:
        made = Path(folder, path.name)
        try:
            with quiet():
                program = torch.export.load(io.BytesIO(data))
                if device != "cpu":
                    from torch.export.passes import move_to_device_pass

                    program = move_to_device_pass(program, device)
                # As many threads as the server says, not as many as there are here.
                settings = {"cpp.dynamic_threads": True}
                torch._inductor.aoti_compile_and_package(program, package_path=str(made), inductor_configs=settings)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ExportError(f"AOTInductor cannot compile {chosen.graph.file}: {lines[0]}") from error
        made.chmod(0o600)
        made.replace(path)
    try:
        Engine.of(bundle, chosen, device).replay_golden()
    except Exception:
        path.unlink()
        raise
    return path
