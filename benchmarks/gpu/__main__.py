"""`python -m benchmarks.gpu`: what serving adds to the bare replay of a CUDA graph; with --write, a report.

ResNet-50 and MiniLM, 8 heads each. The same batch, in turn, in one process:

- replay: the recorded pass of the same graph and bucket alone; its inputs lie on the device, its outputs stay there;
- pass: the runtime on finished arrays: rows to the device, the replay, the packed answers back;
- handler: requests as bytes to responses as bytes: decode, collate, the pass, answers, encode;
- per head: as teams write it, each head a handler of its own, which moves the arrays to the device, runs the whole
  network in eager PyTorch and copies its one answer back; decoding and encoding are left out in its favour.

Where there are no CUDA graphs (`--device cpu`, which tries the script on small networks) replay is the pass itself.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.contest import BATCHES, Timing, measure
from benchmarks.gpu.report import grouped, table, write
from benchmarks.gpu.workloads import WORKLOADS
from polyhead.serving.errors import DeviceUnavailable
from polyhead.serving.runtimes import base

REPORTS = Path(__file__).resolve().parent.parent / "reports"


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--workload", choices=[*WORKLOADS], action="append", help="default: all")
    parser.add_argument("--runtime", choices=("program", "torchscript", "onnxruntime"), action="append")
    parser.add_argument("--device", default="cuda", help="cpu: the same script on small networks, to try it")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="keep a dated report in benchmarks/reports")
    parser.add_argument("--out", type=Path, default=REPORTS, help="keep it there instead")
    asked = parser.parse_args()
    try:
        device = base.resolve_device(asked.device)
    except DeviceUnavailable as error:
        parser.error(str(error))
    small = device == "cpu"
    batches = (1, 4) if small else BATCHES
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.workload or WORKLOADS:
            runtimes = asked.runtime or ["program", "onnxruntime"]
            found = measure(
                name, Path(folder), device, runtimes, batches, asked.rounds, small=small, precision=asked.precision
            )
            timings += found
            for group in grouped(found).values():
                print(table(group), flush=True)
    if asked.write:
        print(write(timings, _machine(device, asked.precision), str(__doc__).partition("\n\n")[2], asked.out))


def _machine(device: str, precision: str) -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "onnxruntime-gpu")}
    named = platform.processor() or platform.machine()
    processor = named if device == "cpu" else torch.cuda.get_device_name(device)
    networks = "small stand-ins, to try the script" if device == "cpu" else "of full size, random weights"
    return {
        "device": processor,
        "networks": networks,
        "precision": precision,
        "Python": platform.python_version(),
        **packages,
    }


if __name__ == "__main__":
    main()
