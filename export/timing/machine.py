"""What a device is, in words: figures without it say nothing."""

from __future__ import annotations

import importlib.metadata
import platform

from polyhead.serving.settings import available_cores

__all__ = ["machine"]

PACKAGES = ("torch", "onnxruntime-gpu")


def machine(device: str) -> str:
    """Processor with cores, or GPU, and the versions that ran there."""
    if device == "cpu":
        cores = available_cores()
        what = f"{_processor()}, {cores} core{'' if cores == 1 else 's'}"
    else:
        import torch

        what = torch.cuda.get_device_name(device)
    return ", ".join([what, *(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)])


def _processor() -> str:
    """Its name, as the kernel says it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a kernel interface
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # no Linux
        names = []
    return names[0] if names and names[0] else platform.machine()
