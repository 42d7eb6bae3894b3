"""Starts BentoML's own server on `bentoml_service.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import arguments


def main() -> None:
    """Become the server."""
    asked = arguments.parse()
    for name in ("folder", "threads", "workers", "batch", "delay"):
        os.environ[f"PEER_{name.upper()}"] = str(getattr(asked, name))
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = str(here)
    os.environ["BENTOML_HOME"] = str(Path.cwd() / "bentoml")
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_service:Peer", "--working-dir", str(here)]
    command += ["--host", "127.0.0.1", "--port", str(asked.port), "--timeout", "60"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
