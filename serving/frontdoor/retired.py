"""Versions that take no requests any more: a file each, which nginx looks for when a request comes.

A reload would do it too, but it hangs up on clients that keep their connections, perhaps while they write to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["Retired", "unless_retired"]


class Retired:
    """The files.

    Args:
        folder: where they stand; nginx's workers must reach it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Make the folder."""
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o711)

    def set(self, titles: Sequence[str]) -> None:
        """Retire these, and no others.

        Args:
            titles: `name/version`, or a model's bare name.

        Raises:
            OSError: there is no room for an empty file.
        """
        wanted = {_mark(*title.partition("/")[::2]) for title in titles}
        for path in self.folder.iterdir():
            if path.name not in wanted:
                path.unlink()
        for name in sorted(wanted):
            (self.folder / name).touch()


def unless_retired(folder: Path, name: str, version: str) -> str:
    """nginx's words for 404 where a version, or a bare name whose version is empty, is retired.

    Args:
        name, version: nginx's variables.
    """
    return f'    if (-f "{folder}/{_mark(name, version)}") {{\n        return 404;\n    }}\n'


def _mark(name: str, version: str) -> str:
    return f"{name}@{version}"
