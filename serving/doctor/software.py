"""What is installed: Python, TorchServe and its Java, the runtimes, the front door's nginx, and what they need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from polyhead.serving.doctor.finding import Finding, good, problem, warning
from polyhead.serving.errors import LaunchError
from polyhead.serving.torchserve.fastpath.install import FIX, SOURCES, require_known
from polyhead.serving.torchserve.java import OLDEST, find_java, torchserve_home

__all__ = ["ONNXRUNTIMES", "fast_path", "java", "onnxruntime", "packages", "providers", "python", "torch", "torchserve"]

EXTRA = "pip install 'polyhead[serve]'"
ONNXRUNTIMES = ("onnxruntime-gpu", "onnxruntime")  # two packages, one module
CUDA_PROVIDER = "CUDAExecutionProvider"
ASK_SECONDS = 60.0  # for a Python of its own to import a library: one that hangs or crashes must not take us along
PROVIDERS = "import json, onnxruntime; print(json.dumps(onnxruntime.get_available_providers()))"


def installed(package: str) -> str | None:
    """A package's version, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def python() -> Iterator[Finding]:
    """The interpreter, and Polyhead itself."""
    where = "virtual environment" if sys.prefix != sys.base_prefix else "the system's"
    what = f"Polyhead {installed('polyhead')} on Python {platform.python_version()} ({where}, {sys.executable})"
    yield good("python", what)


def packages() -> Iterator[Finding]:
    """What `polyhead[serve]` requires, each in a version that it allows."""
    wrong: list[str] = []
    right = 0
    for line in importlib.metadata.requires("polyhead") or ():
        requirement, _, marker = line.partition(";")
        if not re.search(r"extra\s*==\s*['\"]serve['\"]", marker):
            continue
        fault = _fault(requirement.strip())
        right += fault is None
        wrong += [] if fault is None else [fault]
    if not wrong:
        yield good("packages", f"the {right} packages of polyhead[serve], in versions that it allows")
        return
    yield problem("packages", "; ".join(wrong), "polyhead serve would end with an import that fails", EXTRA)


def _fault(requirement: str) -> str | None:
    """What is wrong with one requirement, as `torch<3,>=2.10`; None where nothing is."""
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(.*)", requirement)
    assert match is not None
    name, allowed = match[1], match[2]
    found = installed(name)
    if found is None and name in ONNXRUNTIMES:  # either gives the module; `onnxruntime` below looks closer
        found = next((version for other in ONNXRUNTIMES if (version := installed(other)) is not None), None)
    if found is None:
        return f"{name} is missing"
    if importlib.util.find_spec("packaging") is None:  # torchserve brings it: its own line says what is missing
        return None
    from packaging.specifiers import SpecifierSet

    return None if SpecifierSet(allowed).contains(found, prereleases=True) else f"{name} is {found}, not {allowed}"


def torch() -> Iterator[Finding]:
    """PyTorch and its build, without importing it."""
    version = installed("torch")
    if version is None:
        yield problem("torch", "not installed", "TorchServe's workers import it", EXTRA)
        return
    cuda = torch_cuda()
    yield good("torch", f"PyTorch {version}, {'built for the CPU' if cuda is None else f'built for CUDA {cuda}'}")


def torch_cuda() -> str | None:
    """The version of CUDA that PyTorch was built for, None for a build for the CPU (or without PyTorch)."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.M)
    return None if match is None else match[1]


def providers() -> list[str]:
    """ONNX Runtime's execution providers, as a Python of its own sees them.

    Raises:
        OSError: it cannot be imported, or crashes.
    """
    environment = {"ORT_DISABLE_TELEMETRY": "1", **os.environ}
    command = [sys.executable, "-c", PROVIDERS]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"importing onnxruntime takes more than {ASK_SECONDS:.0f} s") from None
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or [f"it ended with status {result.returncode}"])[-1]
        raise OSError(f"onnxruntime cannot be imported: {last}")
    found: list[str] = json.loads(result.stdout.splitlines()[-1])
    return found


def onnxruntime(gpu: bool) -> Iterator[Finding]:
    """ONNX Runtime: one package of the two, and what it can run on.

    Args:
        gpu: there is a GPU to run on.
    """
    there = [name for name in ONNXRUNTIMES if installed(name) is not None]
    if not there:
        yield problem("onnxruntime", "not installed", "it runs the graphs that serving prefers", EXTRA)
        return
    named = " and ".join(f"{name} {installed(name)}" for name in there)
    if len(there) > 1:
        yield problem(
            "onnxruntime",
            f"{named} are both installed",
            "they are one module: what was installed last has overwritten half of the other",
            f"pip uninstall -y {' '.join(there)} && {EXTRA}",
        )
        return
    found = providers()
    what = f"{named}: {', '.join(found)}"
    if gpu and CUDA_PROVIDER not in found:
        yield warning("onnxruntime", what, "the GPU is left to the other runtimes", "pip install onnxruntime-gpu")
        return
    yield good("onnxruntime", what)


def torchserve() -> Iterator[Finding]:
    """TorchServe, in the one version that is served with."""
    try:
        home = torchserve_home()
    except LaunchError as error:
        what, _, mend = str(error).partition(": ")
        yield problem("torchserve", what, "it is what answers HTTP", mend)
        return
    yield good("torchserve", f"TorchServe {installed('torchserve')} in {home}")


def java() -> Iterator[Finding]:
    """The Java that TorchServe's front end runs on."""
    try:
        found = find_java()
    except LaunchError as error:
        what, _, mend = str(error).rpartition(": ")
        mend = mend if what and "pip install" in mend else "unset JAVA_HOME, and take older ones off the PATH; " + EXTRA
        yield problem("java", what or str(error), f"TorchServe's front end needs Java {OLDEST} or newer", mend)
        return
    yield good("java", f"Java {found.version} from {found.source} ({found.executable})")


def fast_path(wanted: bool, home: Path | None = None) -> Iterator[Finding]:
    """Whether workers read and write by Polyhead's own code, which is for TorchServe's very sources.

    Args:
        wanted: the settings ask for it.
        home: the directory that holds `ts`; where it is installed, if left out.
    """
    if not wanted:
        yield warning(
            "fast path",
            "switched off (polyhead_fast_path=false)",
            "TorchServe's own protocol makes 30 to 45 system calls a request: small models answer far fewer requests",
            "polyhead_fast_path=true in config.properties",
        )
        return
    home, version = home or torchserve_home(), installed("torchserve") or ""
    files = {name: home.joinpath(*name.split(".")).with_suffix(".py") for name in SOURCES}
    try:
        require_known(version, files)
    except LaunchError as error:
        what = str(error).removesuffix(f": {FIX}")
        reinstall = "pip install --force-reinstall --no-deps torchserve==0.12.0"
        yield problem("fast path", what, "workers refuse to load a model", reinstall)
        return
    yield good("fast path", f"active: {len(SOURCES)} sources of TorchServe {version} are as published")
