"""What the machine, or the container, gives: processor time, memory, descriptors, processes, room for files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from polyhead.serving.cores import available_cores
from polyhead.serving.doctor.finding import Finding, good, problem, warning
from polyhead.serving.settings import Settings

__all__ = ["cores", "descriptors", "memory", "processes", "temporary"]

ROOT = Path("/")
MIB = 1024**2
JAVA_BESIDE = 256 * MIB  # that Java takes beside its heap: code, threads, buffers
WORKER = 400 * MIB  # of a worker of a small model: Python, PyTorch, ONNX Runtime
DESCRIPTORS = 4096  # a thousand connections through the front door take two each, in two processes
PROCESSES = 512  # Java alone runs some eighty threads, and a thread counts as a process
TEMPORARY = 64 * MIB
SOCKET = "polyhead-12345678/tmp/.ts.sock.99999"  # the longest path of a worker's socket below the temporary directory
LONGEST_SOCKET = 107


def cores(settings: Settings, models: int) -> Iterator[Finding]:
    """Processor time, and what the settings make of it.

    Args:
        settings: of every model.
        models: how many are to be served; each has workers of its own.
    """
    usable, seen = available_cores(), os.cpu_count() or 1
    granted = f"{usable} cores" + ("" if usable == seen else f" of the machine's {seen} (affinity or control group)")
    threads = settings.threads_per_worker()
    busy = threads * settings.workers * max(1, models)
    of = f"{models or 'one'} model{'s' if models > 1 else ''} x {settings.workers} workers x {threads} threads"
    if settings.threads and busy > usable * max(1, models):
        yield warning(
            "cores",
            f"{granted}; {of} want {busy}",
            "threads beyond the cores wait for each other, and a control group stops them all at its quota",
            "polyhead_threads=0 in config.properties: cores / workers",
        )
        return
    if settings.workers > usable:
        yield warning(
            "cores",
            f"{granted}; {settings.workers} workers a model",
            "each worker holds the whole model, and they share the cores",
            f"polyhead_workers={usable} in config.properties, or more cores",
        )
        return
    yield good("cores", f"{granted}: {of}")


def memory(java_arguments: list[str], settings: Settings, bundle_bytes: int, root: Path = ROOT) -> Iterator[Finding]:
    """Memory, against what Java may take and the workers will.

    Args:
        java_arguments: of `vmargs`.
        settings: of every model.
        bundle_bytes: of all bundles to be served; 0 where none was named.
        root: where `proc` and `sys` lie.
    """
    limit, source = memory_limit(root)
    heap = _heap(java_arguments)
    wanted = heap + JAVA_BESIDE + settings.workers * (WORKER + 2 * bundle_bytes)
    what = f"{limit / MIB:,.0f} MiB ({source}); about {wanted / MIB:,.0f} MiB where Java fills its heap"
    if wanted > limit:
        yield warning(
            "memory",
            what,
            f"the kernel kills what goes beyond: {heap / MIB:,.0f} MiB of Java's heap, and each worker holds its model",
            f"more memory, or a smaller -Xmx in vmargs (below {max(256, int((limit - wanted + heap) / MIB))} MiB), "
            "or fewer polyhead_workers",
        )
        return
    yield good("memory", what)


def memory_limit(root: Path = ROOT) -> tuple[int, str]:
    """Bytes that may be taken, and what sets the bound: the control group, or the machine."""
    total = next(
        int(line.split()[1]) * 1024
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        if line.startswith("MemTotal:")
    )
    bounds = [(total, "the machine's")]
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        value = _number(root / name)
        if value is not None and value < total:
            bounds.append((value, "the control group's limit"))
    return min(bounds)


def _heap(java_arguments: list[str]) -> int:
    """Bytes of Java's heap by -Xmx; Java's own default, a quarter of the memory, where it is not said."""
    units = {"k": 1024, "m": MIB, "g": 1024 * MIB}
    for argument in java_arguments:
        if argument.startswith("-Xmx"):
            number, unit = argument[4:-1], argument[-1].lower()
            return int(number) * units[unit] if unit in units else int(argument[4:])
    return memory_limit()[0] // 4


def _number(path: Path) -> int | None:
    """A file's number; None where there is no such file, or it says `max`."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def descriptors() -> Iterator[Finding]:
    """How many files and connections one process may hold open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    what = f"{shown} open files and connections a process"
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        higher = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
        mend = (
            f"ulimit -n {higher}" if higher >= DESCRIPTORS else "raise the hard limit too: docker --ulimit nofile=65536"
        )
        yield warning("descriptors", what, f"a burst of connections ends in refusals below {DESCRIPTORS:,}", mend)
        return
    yield good("descriptors", what)


def processes(root: Path = ROOT) -> Iterator[Finding]:
    """How many processes and threads the control group may hold."""
    limit = _number(root / "sys/fs/cgroup/pids.max")
    if limit is not None and limit < PROCESSES:
        yield warning(
            "processes",
            f"{limit} processes and threads (control group)",
            "Java runs some eighty threads, each worker its own: a worker that cannot start one dies",
            f"docker run --pids-limit {PROCESSES}",
        )
        return
    yield good("processes", "no bound" if limit is None else f"{limit} processes and threads (control group)")


def temporary() -> Iterator[Finding]:
    """The temporary directory: sockets, configuration, counts and the front door's buffers lie there."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        yield problem("tmp", f"no temporary directory can be written to ({error.args[-1]})", WHY_TMP, MEND_TMP)
        return
    free = shutil.disk_usage(folder).free
    what = f"{folder}: {free / MIB:,.0f} MiB free"
    length = len(os.fsencode(folder / SOCKET))
    if length > LONGEST_SOCKET:
        why = f"a socket's path may have {LONGEST_SOCKET} bytes, the workers' would have {length}"
        yield problem("tmp", what, why, "TMPDIR=/tmp, or another short path")
        return
    inodes = os.statvfs(folder)
    if inodes.f_files and inodes.f_favail < 1000:
        yield problem("tmp", f"{what}, but only {inodes.f_favail} more files", WHY_TMP, MEND_TMP)
        return
    if free < TEMPORARY:
        yield problem("tmp", what, f"{WHY_TMP}: {TEMPORARY // MIB} MiB are needed", MEND_TMP)
        return
    yield good("tmp", what)


WHY_TMP = "sockets, configuration, counts and the front door's buffers lie there"
MEND_TMP = "free some room, mount a larger one (docker --tmpfs /tmp:size=256m), or set TMPDIR to a short path elsewhere"
