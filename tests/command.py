"""Run the command line as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POLYHEAD = Path(sys.executable).with_name("polyhead")


def run_polyhead(*arguments: object, expect: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would; fails the test with its output where the exit status is another."""
    result = subprocess.run(
        [str(POLYHEAD), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": 300, **options},
    )
    assert result.returncode == expect, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def without_java() -> dict[str, str]:
    """An environment in which no Java is to be found but the package index's."""
    environment = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"}
    environment["PATH"] = str(POLYHEAD.parent)
    return environment
