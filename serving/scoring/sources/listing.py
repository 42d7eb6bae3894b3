"""The files that an input's address names: a file, a folder, or a pattern with `*`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from polyhead.serving.scoring.errors import InputUnreadable, JobRefused
from polyhead.serving.scoring.filesystems import resolve
from polyhead.serving.scoring.reading import Format
from polyhead.serving.scoring.units import InputFile

__all__ = [
    "COMPRESSIONS",
    "SUFFIXES",
    "Listing",
    "address_of",
    "format_of",
    "found",
    "require_outside",
    "root_of",
    "stem_of",
]

SUFFIXES: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".parq", ".pq"),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
    "arrow": (".arrow", ".arrows", ".feather", ".ipc"),
    "images": (".png", ".jpg", ".jpeg"),
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # of text, by the last suffix


@dataclass(frozen=True, slots=True)
class Listing:
    """An input as it is when a job begins.

    Attributes:
        source: the address that tells its file system and its folder.
        filesystem: that the files are on.
        files: in the order of their paths.
        format: of every file.
        schema: every column, as the first file has them.
        known: whether there was a row, or a file's own word, to tell the columns by.
    """

    source: str
    filesystem: fs.FileSystem
    files: tuple[InputFile, ...]
    format: Format
    schema: pa.Schema
    known: bool = True


def found(source: str | Path | Sequence[str | Path]) -> tuple[str, fs.FileSystem, list[fs.FileInfo]]:
    """An address that stands for the whole input, its file system, and its files by path.

    Raises:
        JobRefused: there are none, or they are on several file systems.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise JobRefused("no input: name a file, a folder or a pattern")
    first = resolve(address_of(str(sources[0])))[0]
    infos: dict[str, fs.FileInfo] = {}
    for one in sources:
        address, pattern = _base(one)
        filesystem, path = resolve(address)
        if not first.equals(filesystem):
            raise JobRefused(f"{one}: is on another file system than {sources[0]}: score them apart")
        infos |= {info.path: info for info in _under(filesystem, path, pattern, str(one))}
    return str(sources[0]), first, [infos[path] for path in sorted(infos)]


def root_of(source: str) -> str:
    """The folder that the files of an input are named in, as a path on its file system."""
    filesystem, path = resolve(_base(source)[0])
    return path if filesystem.get_file_info(path).type == fs.FileType.Directory else path.rpartition("/")[0]


def require_outside(source: str | Path | Sequence[str | Path], destination: str) -> None:
    """Refuse a destination whose parts would be files of the input, once they are there.

    Raises:
        JobRefused: naming both.
    """
    filesystem, place = resolve(destination)
    part = f"{place}/part-00000000.parquet"
    for one in [source] if isinstance(source, str | Path) else source:
        address, pattern = _base(one)
        theirs, root = resolve(address)
        folder = root.rstrip("/") + "/"
        inside = theirs.equals(filesystem) and part.startswith(folder)
        if inside and _pattern(pattern or "**").fullmatch(part.removeprefix(folder)):
            raise JobRefused(
                f"{destination}: lies in the input {one}, so that answers would be read as input: "
                "score into a directory outside, or into one whose name begins with _"
            )


def address_of(source: str) -> str:
    """The address of an input without its pattern."""
    return _base(source)[0]


def format_of(infos: Sequence[fs.FileInfo], source: str) -> Format:
    """The one format that all files' names tell.

    Raises:
        JobRefused: a name tells none, or they tell several.
    """
    seen: dict[Format, str] = {}
    for info in infos:
        suffix = Path(stem_of(info.path)).suffix.lower()
        match = next((name for name, suffixes in SUFFIXES.items() if suffix in suffixes), None)
        if match is None:
            known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
            raise JobRefused(
                f"{info.path}: its name tells no format ({known}): "
                "say --format, or name the files by a pattern such as 'folder/*.parquet'"
            )
        seen.setdefault(match, info.path)
    if len(seen) > 1:
        both = ", ".join(f"{path} is {name}" for name, path in seen.items())
        raise JobRefused(f"{source}: files of several formats ({both}): say --format, or name one kind by a pattern")
    return next(iter(seen))


def stem_of(path: str) -> str:
    """A path without the suffix of its compression."""
    suffix = Path(path).suffix.lower()
    return path[: -len(suffix)] if suffix in COMPRESSIONS else path


def _base(source: str | Path) -> tuple[str, str]:
    """The address before the first pattern, and the pattern below it; `?` is a pattern in local paths alone."""
    text = str(source)
    address, mark, options = text.partition("?") if "://" in text else (text, "", "")
    wild = "*[" if "://" in text else "*[?"
    if not any(sign in address for sign in wild) or ("://" not in text and Path(text).exists()):
        return text, ""
    parts = address.split("/")
    first = next(index for index, part in enumerate(parts) if any(sign in part for sign in wild))
    pattern = "/".join(parts[first:])
    pattern += "**" if pattern.endswith("/") else ""  # folders, and all in them
    return ("/".join(parts[:first]) or ("/" if first else ".")) + mark + options, pattern


def _under(filesystem: fs.FileSystem, path: str, pattern: str, source: str) -> list[fs.FileInfo]:
    if isinstance(filesystem, fs.PyFileSystem) and isinstance(filesystem.handler, fs.FSSpecHandler):
        filesystem.handler.fs.invalidate_cache()  # it may have listed this folder before a file was written
    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File and not pattern:
            return [info]
        if info.type == fs.FileType.NotFound and not _is_prefix(filesystem):
            raise JobRefused(f"{source}: not found: check the address")
        inside = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    except (OSError, pa.ArrowException) as error:
        raise InputUnreadable(f"{source}: cannot be listed ({' '.join(str(error).split())[:300]})") from None
    files = [info for info in inside if info.type == fs.FileType.File]
    matches = _pattern(pattern or "**")
    kept = [info for info in files if matches.fullmatch(info.path[len(path) :].lstrip("/"))]
    if not kept:
        raise JobRefused(f"{source}: no files there (names that begin with . or _ are passed over): check the address")
    return kept


def _is_prefix(filesystem: fs.FileSystem) -> bool:
    """Whether folders are but parts of names, so that one may not be found and yet have files."""
    return not isinstance(filesystem, fs.LocalFileSystem)


def _pattern(pattern: str) -> re.Pattern[str]:
    """Of a path below a folder: `*` within a name, `**` any folders; neither begins with `.` or `_`."""
    parts = pattern.split("/")
    written = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            written += r"(?:[^._/][^/]*/)*" + (r"[^._/][^/]*" if last else "")
        else:
            body = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z").replace(".*", "[^/]*")
            shown = "" if part[0] in "._" else r"(?![._])"
            written += shown + f"(?:{body})" + ("" if last else "/")
    return re.compile(written, re.DOTALL)
