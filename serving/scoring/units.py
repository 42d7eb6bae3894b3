"""Work units: which rows of which files are scored together. Planned once from the physical layout, then frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["InputFile", "Unit"]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file as it was when the job was planned.

    Attributes:
        path: on its file system.
        size: in bytes.
        version: its etag, or its time of modification in nanoseconds; whatever changes when it is written again.
    """

    path: str
    size: int
    version: str


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that one worker scores and one receipt answers for.

    Attributes:
        ordinal: its place in the job, and in the output.
        files: one of a table; each row's own of a folder of images.
        first_row: the number of its first row in the file, or in the folder's listing.
        rows: how many.
        octets: start and end in the file, where rows are lines of text; `(0, 0)` elsewhere.
    """

    ordinal: int
    files: tuple[InputFile, ...]
    first_row: int
    rows: int
    octets: tuple[int, int] = (0, 0)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Back from JSON."""
        files: Iterable[Mapping[str, Any]] = plain["files"]
        start, end = plain["octets"]
        return cls(
            plain["ordinal"], tuple(InputFile(**f) for f in files), plain["first_row"], plain["rows"], (start, end)
        )

    def file_of(self, row: int) -> str:
        """The path of the file that holds a row of this unit."""
        return self.files[row if len(self.files) > 1 else 0].path
