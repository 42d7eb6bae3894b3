"""GPUs, as NVIDIA's driver tells of them: without PyTorch, whose import takes seconds, and may be what fails."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polyhead.serving.doctor.finding import Finding, good, problem, warning
from polyhead.serving.doctor.software import torch_cuda
from polyhead.serving.settings import Settings

__all__ = ["Gpu", "findings", "gpus"]

LIBRARY = "libnvidia-ml.so.1"
MISMATCH = 18  # NVML_ERROR_LIB_RM_VERSION_MISMATCH
NO_DRIVER = 9  # NVML_ERROR_DRIVER_NOT_LOADED
FULL = 0.1  # of a GPU's memory that is free where another process has it
MIB = 1024**2


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes."""

    name: str
    total: int
    free: int


class DriverError(OSError):
    """The driver's library is there and does not work; `code` is NVML's."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVIDIA's driver answers with error {code}")
        self.code = code


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def gpus() -> tuple[str, str, list[Gpu]] | None:
    """The driver's version, the newest CUDA it runs, and the GPUs; None where no driver is installed.

    Raises:
        DriverError: it is installed and does not work.
    """
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    _call(nvml.nvmlInit_v2)
    try:
        text, number = ctypes.create_string_buffer(96), ctypes.c_int()
        _call(nvml.nvmlSystemGetDriverVersion, text, ctypes.c_uint(len(text)))
        driver = text.value.decode()
        _call(nvml.nvmlSystemGetCudaDriverVersion_v2, ctypes.byref(number))
        cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
        count = ctypes.c_uint()
        _call(nvml.nvmlDeviceGetCount_v2, ctypes.byref(count))
        return driver, cuda, [_gpu(nvml, index) for index in range(count.value)]
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: ctypes.CDLL, index: int) -> Gpu:
    device, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), _Memory()
    _call(nvml.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(index), ctypes.byref(device))
    _call(nvml.nvmlDeviceGetName, device, name, ctypes.c_uint(len(name)))
    _call(nvml.nvmlDeviceGetMemoryInfo, device, ctypes.byref(memory))
    return Gpu(name.value.decode(), memory.total, memory.free)


def _call(function: ctypes._FuncPointer, *arguments: object) -> None:
    code = int(function(*arguments))
    if code:
        raise DriverError(code)


def findings(settings: Settings) -> Iterator[Finding]:
    """What the models will run on, against what the settings ask for."""
    asked = settings.device
    try:
        found = gpus()
    except DriverError as error:
        yield _broken(error, asked)
        return
    if found is None or not found[2]:
        what = "no NVIDIA driver" if found is None else "NVIDIA's driver sees no GPU"
        if asked.startswith("cuda"):
            why = f"polyhead_device={asked}: nothing falls back in silence, so the server would not start"
            mend = "docker run --gpus all, a driver on the host, or polyhead_device=cpu"
            yield problem("device", what, why, mend)
            return
        yield good("device", f"{what}: models run on the CPU")
        return
    yield from _gpus(asked, *found)


def _broken(error: DriverError, asked: str) -> Finding:
    if error.code == NO_DRIVER and not Path("/dev/nvidiactl").exists() and not asked.startswith("cuda"):
        return good("device", "NVIDIA's library without a driver: models run on the CPU")
    if error.code == MISMATCH:
        what, mend = "NVIDIA's library and kernel module are of different versions", "restart the machine"
        return problem("device", what, "the driver was updated under a running system: no GPU can be used", mend)
    mend = "nvidia-smi says more; restart the machine, or polyhead_device=cpu"
    return problem("device", str(error), "no GPU can be used", mend)


def _gpus(asked: str, driver: str, cuda: str, found: list[Gpu]) -> Iterator[Finding]:
    shown = ", ".join(f"{g.name} {g.free / MIB:,.0f} of {g.total / MIB:,.0f} MiB free" for g in found)
    what = f"driver {driver} (CUDA {cuda}): {shown}"
    built = torch_cuda()
    index = int(asked.partition(":")[2] or 0)
    if asked == "cpu":
        yield good("device", f"{what}; left alone (polyhead_device=cpu)")
    elif index >= len(found):
        mend = f"polyhead_device=cuda:{len(found) - 1}, or fewer"
        yield problem("device", what, f"polyhead_device={asked} is not among them", mend)
    elif built is None:
        why = "this PyTorch is built for the CPU: the GPU is not used" + (", and asked for" if asked != "auto" else "")
        level = warning if asked == "auto" else problem
        yield level("device", what, why, "make setup TORCH=cuda, or the gpu image")
    elif _major(built) > _major(cuda):
        why = f"PyTorch is built for CUDA {built}, which this driver is too old for"
        yield problem("device", what, why, f"a driver for CUDA {_major(built)}, or polyhead_device=cpu")
    elif found[index].free < FULL * found[index].total:
        why = "another process holds its memory"
        yield warning("device", what, why, "nvidia-smi names the process; or polyhead_device=cuda:N")
    else:
        yield good("device", what)


def _major(version: str) -> int:
    return int(version.partition(".")[0])
