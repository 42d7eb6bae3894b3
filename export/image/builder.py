"""The tool that builds images here: docker, podman or buildah."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyhead.export.errors import ExportError

__all__ = ["BUILDERS", "Builder", "find_builder"]

# What each is asked, to know that it works and not only that it is installed: docker's command is of no use alone.
BUILDERS = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info", "--format", "{{.Version.Version}}"),
    "buildah": ("info",),
}
ASK_SECONDS = 30


@dataclass(frozen=True)
class Builder:
    """A tool that works here."""

    name: str
    executable: Path
    passed: tuple[str, ...] = ()  # those before it that do not work, and why

    def build(self, context: Path, tag: str, arguments: Sequence[str] = ()) -> str:
        """Build a context's image, telling its progress to the terminal. Returns the image's id.

        Args:
            context: the folder with the Dockerfile.
            tag: the image's name.
            arguments: further ones of the tool's, as `--build-arg=NAME=value`.

        Raises:
            ExportError: the tool failed; its own words stand above.
        """
        fixed = ["--tag", tag, "--file", str(context / "Dockerfile")]
        if self.name != "docker":  # the same bundles, the same image; docker reads SOURCE_DATE_EPOCH
            fixed += ["--timestamp", "0", "--format", "docker"]  # the format that holds a health check
        command = [str(self.executable), "build", *fixed, *arguments, str(context)]
        done = subprocess.run(command, stdout=sys.stderr, check=False)  # standard output is for the result
        if done.returncode:
            raise ExportError(
                f"{self.name} build ended with {done.returncode}: see its own words above; the context is {context}"
            )
        return self._identifier(tag)

    def _identifier(self, tag: str) -> str:
        kind = ["--type", "image"] if self.name != "docker" else ["--type=image"]
        form = "{{.FromImageID}}" if self.name == "buildah" else "{{.Id}}"
        done = subprocess.run(
            [str(self.executable), "inspect", *kind, "--format", form, tag], capture_output=True, text=True, check=False
        )
        return done.stdout.strip().removeprefix("sha256:")


def find_builder(name: str = "auto") -> Builder:
    """The named tool, or the first of docker, podman and buildah that works.

    Raises:
        ExportError: it is not installed or does not work; of `auto`, why each does not.
    """
    faults: list[str] = []
    for wanted in BUILDERS if name == "auto" else (name,):
        executable = shutil.which(wanted)
        fault = "is not installed" if executable is None else _fault(executable, BUILDERS[wanted])
        if fault is None:
            assert executable is not None
            return Builder(wanted, Path(executable), tuple(faults))
        faults.append(f"{wanted} {fault}")
    raise ExportError(
        f"no tool to build an image with: {'; '.join(faults)}: mend one, or give --output for a context alone"
    )


def _fault(executable: str, question: Sequence[str]) -> str | None:
    """Why a tool does not work, in its own words; None where it does."""
    try:
        done = subprocess.run([executable, *question], capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer ({error})"
    if done.returncode == 0:
        return None
    words = (done.stderr or done.stdout).strip().splitlines()
    return f"does not work ({words[-1].strip() if words else f'status {done.returncode}'})"
