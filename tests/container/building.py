"""The image, built as on any machine: from a copy of what git would clone, on a base made by debootstrap."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT

__all__ = ["BASE", "IMAGE", "PROGRAMS", "base", "build", "checkout"]

IMAGE = "localhost/polyhead-test:cpu"
BASE = "localhost/polyhead-base:bookworm"
# What this needs of the machine, by Debian's names.
PROGRAMS = {"buildah": "buildah", "crun": "crun", "debootstrap": "debootstrap", "nmap": "nmap", "ip": "iproute2"}
CACHE = Path(os.environ.get("POLYHEAD_CONTAINER_CACHE", Path.home() / ".cache" / "polyhead" / "container"))
PACKAGES = "python3,python3-venv,ca-certificates"
PIP_KEYS = ("find-links", "index-url", "extra-index-url", "cert")


def call(*command: object, timeout: float = 1800, **options: object) -> str:
    """A command's output; its words in the failure of the test."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}")
    return done.stdout


def base() -> str:
    """Debian with Python, as an image; made once."""
    if subprocess.run(["buildah", "inspect", BASE], capture_output=True, check=False).returncode == 0:
        return BASE
    root = CACHE / "base"
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root)
    for name in ("etc/resolv.conf", "etc/hostname", "etc/hosts"):  # this machine's, put there by debootstrap
        (root / name).unlink(missing_ok=True)
        (root / name).touch()
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    container = call("buildah", "from", "scratch").strip()
    call("buildah", "add", "--quiet", container, root, "/")
    call("buildah", "config", "--cmd", "python3", container)
    call("buildah", "commit", "--quiet", "--rm", container, BASE)
    return BASE


def checkout(folder: Path) -> Path:
    """What a fresh clone of this tree would hold."""
    listed = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def build(context: Path, tag: str = IMAGE, target: str = "cpu") -> str:
    """Build a target of the Dockerfile. Pip in it is configured as pip is here."""
    call(
        *("buildah", "build", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never"),
        *("--format", "docker", "--target", target, "--tag", tag, "--build-arg", f"BASE={base()}"),
        *("--build-arg", f"REVISION={revision()}"),
        *pip_arguments(),
        context,
    )
    return tag


def revision() -> str:
    """Of the tree, as git names it."""
    return call("git", "rev-parse", "HEAD", cwd=ROOT).strip()


def pip_arguments() -> list[str]:
    """Build arguments with pip's configuration on this machine, and mounts of the local folders that it names."""
    lines = call(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = dict(re.findall(r"\.([a-z-]+)='(.*)'$", "\n".join(lines), re.MULTILINE))
    # They lie below /tmp, which is mounted anew wherever the image runs: nothing is left of them.
    arguments, mounts = [], []
    for key in PIP_KEYS:
        words = []
        for word in found.get(key, "").split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute():
                inside, outside = f"/tmp/pip/{len(mounts)}", path.parent if path.name == "simple" else path
                mounts.append(f"{outside}:{inside}:ro")
                words.append(f"file://{inside}/simple" if path.name == "simple" else inside)
            else:
                words.append(word)
        if words:
            arguments += ["--build-arg", f"PIP_{key.upper().replace('-', '_')}={' '.join(words)}"]
    return [*arguments, *(part for mount in mounts for part in ("--volume", mount))]
