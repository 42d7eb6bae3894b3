"""A folder that `polyhead package` writes, put in its place: never over anything that it did not write itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from polyhead.export.errors import ExportError

__all__ = ["Kind", "claim", "place"]


@dataclass(frozen=True)
class Kind:
    """What tells a folder of ours from any other.

    Attributes:
        title: what it is called in errors.
        mark: a file in it, and how that begins: nobody else writes this.
        names: patterns of everything that lies at its top.
    """

    title: str
    mark: tuple[str, bytes]
    names: Sequence[str]

    def fault(self, folder: Path) -> str | None:
        """Why a folder is not ours alone, in words; None where it is."""
        file, start = self.mark
        path = folder / file
        if not path.is_file() or not path.read_bytes().startswith(start):
            return f"is no {self.title} of polyhead package"
        for entry in sorted(folder.iterdir()):
            if not any(fnmatchcase(entry.name, pattern) for pattern in self.names):
                return f"holds {entry.name}, which polyhead package did not write"
        return None


def claim(target: Path, force: bool, kind: Kind) -> Path:
    """The place to write to, links followed, so that what a link names is replaced and not the link.

    Raises:
        ExportError: there is something that may not be replaced.
    """
    target = target.resolve()
    if not target.exists():
        return target
    if not force:
        raise ExportError(f"{target} exists already: give another --out, or --force to replace it")
    fault = kind.fault(target)
    if fault is not None:
        raise ExportError(f"{target} {fault}: --force would remove it; move it away, or give another --out")
    return target


def place(folder: Path, target: Path) -> None:
    """Rename a finished folder to its target, on the same file system.

    What was there is moved aside first, back where that fails, and removed last.
    """
    if not target.exists():
        folder.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(aside / "folder")
        try:
            folder.rename(target)
        except OSError:
            (aside / "folder").rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
