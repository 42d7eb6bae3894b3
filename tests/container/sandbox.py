"""A container as an operator would run it, by the OCI runtime alone: crun on the image's mounted root.

Not root, no capability, no new privilege, a read-only root, a /tmp of bounded size, its own processes, and a network of
its own that is reached over a virtual cable: so what a scan from this side finds is what a stranger finds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

__all__ = ["Container", "Image", "Network"]

MASKED = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"]


def run(*command: object, check: bool = True, timeout: float = 120) -> str:
    """A command's output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


class Image:
    """An image's root, mounted, and what its configuration says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.container = run("buildah", "from", "--pull-never", name).strip()
        self.root = Path(run("buildah", "mount", self.container).strip())
        inspected = json.loads(run("buildah", "inspect", "--type", "image", name))
        self.config = inspected["OCIv1"]["config"]
        self.docker = inspected["Docker"]["config"]

    def close(self) -> None:
        run("buildah", "rm", self.container)

    def files(self) -> list[Path]:
        """Every file, link and folder, as the image names it; not what the builder's mounts left empty below /tmp."""
        named = [Path("/", path.relative_to(self.root)) for path in self.root.rglob("*")]
        return [path for path in named if path.parts[1] != "tmp"]

    def bytes(self) -> int:
        """Of all files, each counted once."""
        return sum(path.lstat().st_size for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())


class Network:
    """A network namespace with one cable to this one; the container's end is the only way in."""

    def __init__(self, number: int) -> None:
        self.name, self.cable = f"polyhead-{number}", f"phead{number}"
        self.host, self.address = f"10.213.{number}.1", f"10.213.{number}.2"
        self.close()
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "address", "add", f"{self.host}/30", "dev", self.cable)
        run("ip", "link", "set", self.cable, "up")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", self.name, "link", "set", device, "up")

    @property
    def path(self) -> str:
        return f"/var/run/netns/{self.name}"

    def close(self) -> None:
        run("ip", "link", "del", self.cable, check=False)
        run("ip", "netns", "del", self.name, check=False)


class Container:
    """One run of an image.

    Args:
        image, network: what runs, and where.
        folder: for the runtime's own files.
        mounts: what lies where, read-only.
        command: in place of the image's own CMD.
        tmp: size of /tmp.
        memory: bytes that all its processes may have; None for no bound.
    """

    def __init__(
        self,
        image: Image,
        network: Network,
        folder: Path,
        mounts: Mapping[str, Path],
        command: Sequence[str] | None = None,
        tmp: str = "64m",
        memory: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.network, self.image = f"polyhead-{os.getpid()}-{time.monotonic_ns()}", network, image
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        arguments = [*image.config["Entrypoint"], *(image.config["Cmd"] if command is None else command)]
        self.spec = specification(image, network, arguments, mounts, tmp, environment or {})
        self.memory = None if memory is None else Memory(self.name, memory)
        (self.folder / "config.json").write_text(json.dumps(self.spec))
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [*CRUN, "run", "--bundle", str(self.folder), self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=None if self.memory is None else self.memory.enter,
            )
        self.http = httpx.Client(base_url=f"http://{network.address}:8080", timeout=30, trust_env=False)

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def wait_until_ready(self, seconds: float = 120) -> float:
        """Seconds until readiness said yes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.text()}")
            try:
                if self.http.get("/v2/health/ready", timeout=2).status_code == 200:
                    return time.monotonic() - self.started
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready after {seconds} s:\n{self.text()}")

    def execute(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as its user."""
        return subprocess.run(
            [*CRUN, "exec", "--user", self.image.config["User"], self.name, *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def state(self) -> Mapping[str, object]:
        return json.loads(run(*CRUN, "state", self.name))

    def kill(self, name: str = "TERM") -> None:
        run(*CRUN, "kill", self.name, name)

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM to its first process, as `docker stop` does; returns the exit status."""
        self.kill()
        return self.process.wait(seconds)

    def close(self) -> None:
        """Whatever state it is in: gone."""
        self.http.close()
        run(*CRUN, "delete", "--force", self.name, check=False)
        if self.process.poll() is None:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.memory is not None:
            self.memory.close()


# The runtime leaves control groups alone, and is shown those of version 2 alone: it refuses hosts that have both.
CRUN = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    *('mount -t cgroup2 none /sys/fs/cgroup && exec crun --cgroup-manager=disabled "$@"', "crun"),
)


class Memory:
    """A control group that bounds the memory of whoever is put into it, in whichever version the host has."""

    def __init__(self, name: str, limit: int) -> None:
        first = Path("/sys/fs/cgroup/memory")
        self.folder = (first if first.is_dir() else Path("/sys/fs/cgroup")) / name
        self.folder.mkdir()
        bound = self.folder / ("memory.limit_in_bytes" if first.is_dir() else "memory.max")
        bound.write_text(str(limit))

    def enter(self) -> None:
        """In the child, before the runtime starts."""
        (self.folder / "cgroup.procs").write_text("0")

    def peak(self) -> int:
        """Bytes at most so far."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if (self.folder / name).exists():
                return int((self.folder / name).read_text())
        raise AssertionError(f"{self.folder} tells no peak")

    def close(self) -> None:
        self.folder.rmdir()


def specification(
    image: Image,
    network: Network,
    arguments: Sequence[str],
    mounts: Mapping[str, Path],
    tmp: str,
    environment: Mapping[str, str],
) -> dict[str, object]:
    """The runtime's config.json."""
    user, _, group = image.config["User"].partition(":")
    fixed = [
        ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ("/tmp", "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", "mode=1777", f"size={tmp}"]),
    ]
    bound = [(inside, "bind", str(outside), ["rbind", "ro"]) for inside, outside in mounts.items()]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": list(arguments),
            "env": [*image.config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": image.config["WorkingDir"],
            "noNewPrivileges": True,
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        },
        "root": {"path": str(image.root), "readonly": True},
        "hostname": "polyhead",
        "mounts": [
            {"destination": where, "type": kind, "source": what, "options": options}
            for where, kind, what, options in [*fixed, *bound]
        ],
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                {"type": "network", "path": network.path},
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"],
        },
    }
