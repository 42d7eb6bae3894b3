"""The command line of a peer's server."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["parse"]


def parse() -> argparse.Namespace:
    """The model's folder, and the settings that every contender is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="holds task.json, model.onnx, model.pt, bundle/")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--delay", type=int, default=1, help="milliseconds")
    return parser.parse_args()
