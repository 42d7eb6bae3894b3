"""Bundles in folders: which there are, and where one version of a model lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from polyhead.serving.bundle import MANIFEST
from polyhead.serving.errors import DeployError, LaunchError

__all__ = ["find_bundles", "find_version"]


def find_bundles(paths: Sequence[Path]) -> list[Path]:
    """Each path that is a bundle, and the bundles right inside each path that is a folder of them.

    Raises:
        LaunchError: a path holds no bundle.
    """
    found: list[Path] = []
    for path in paths:
        if (path / MANIFEST).exists() or not path.is_dir():
            found.append(path)
            continue
        # Not glob: it passes over a folder that cannot be read, and says nothing.
        folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
        inside = [folder for folder in folders if (folder / MANIFEST).exists()]
        found += inside
        if not inside:
            raise LaunchError(f"{path}: is no bundle and holds none (no {MANIFEST}): polyhead export writes one")
    return found


def find_version(paths: Sequence[Path], title: str) -> Path:
    """Where a version of a model lies; nothing of the bundle but its name is believed here.

    Raises:
        DeployError: it lies nowhere, or in several places.
        LaunchError: a path holds no bundle.
    """
    titles = {folder: _title(folder) for folder in find_bundles(paths)}
    found = [folder for folder, own in titles.items() if own == title]
    if not found:
        there = ", ".join(sorted(set(titles.values()))) or "nothing"
        raise DeployError(f"no bundle of {title} lies where the server was told to look (there: {there}): put it there")
    if len(found) > 1:
        places = " and ".join(folder.name for folder in found)
        raise DeployError(f"{title} lies in {places}: remove all but one, or say which by --bundle")
    return found[0]


def _title(folder: Path) -> str:
    """Name and version that a manifest claims; none where it claims nothing."""
    try:
        spec = orjson.loads((folder / MANIFEST).read_bytes())["spec"]
        return f"{spec['name']}/{spec['version']}"
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return f"{folder.name} (unreadable)"
