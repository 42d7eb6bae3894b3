"""Programs that these tests ask where they are installed, and manifests as they are read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import ROOT

DEPLOY = ROOT / "deploy"


def program(name: str, package: str) -> str:
    """A program's path; skips the test, and says what to install, where it is not here."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: apt-get install {package} (Debian), and deploy/ is checked by it too")
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    return program("promtool", "prometheus")


@pytest.fixture(scope="session")
def kustomize() -> Callable[[Path], str]:
    """What kustomize makes of a folder, as text."""
    if shutil.which("kustomize") is not None:
        command = ["kustomize", "build"]
    elif shutil.which("kubectl") is not None:
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is here: install either, and the overlays are built and checked too")

    def build(folder: Path) -> str:
        result = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return build
