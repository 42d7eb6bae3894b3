"""A virtual environment per contender, under .cache/peers: made when it is first asked for, with pinned versions."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.contenders import ROOT, Contender

__all__ = ["EnvironmentFailed", "python_of"]

FOLDER = ROOT / ".cache" / "peers"
STAMP = "packages.sha256"
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


class EnvironmentFailed(RuntimeError):
    """An environment could not be made."""


def python_of(contender: Contender, say: Callable[[str], None]) -> Path:
    """The contender's Python, its packages installed.

    Raises:
        EnvironmentFailed: pip could not; with its last words.
    """
    if not contender.packages:
        return Path(sys.executable)
    folder = FOLDER / contender.name
    python, stamp = folder / "bin" / "python", folder / STAMP
    wanted = hashlib.sha256("\n".join(contender.packages).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
        return python
    say(f"{contender.name}: installing {', '.join(contender.packages[:2])}, … into {folder.relative_to(ROOT)}")
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", "install"]
    _install([*pip, *contender.packages], contender)
    if contender.project:
        # addsitedir, not a mere path: Polyhead is installed in editable mode, which is a .pth file of its own.
        line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        site = subprocess.run([str(python), "-c", PURELIB], capture_output=True, text=True, check=True).stdout
        Path(site.strip(), "polyhead_environment.pth").write_text(line, encoding="utf-8")
    stamp.write_text(wanted, encoding="ascii")
    return python


def _install(command: list[str], contender: Contender) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER)
    if found.returncode != 0:
        lines = [line for line in found.stderr.splitlines() if line.startswith("ERROR")] or [found.stderr.strip()]
        raise EnvironmentFailed(f"{contender.name}: pip could not install its packages: {lines[-1][:300]}")
