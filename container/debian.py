"""The Debian packages of a root file system: which are needed, and how the others leave it.

Package management is not run for this: it needs a shell, and would take its own leave half way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Package", "closure", "copyright_of", "leave", "read_packages"]

STATUS = "var/lib/dpkg/status"
INFO = "var/lib/dpkg/info"


@dataclass(frozen=True)
class Package:
    """One installed package, as `var/lib/dpkg/status` tells of it."""

    name: str
    version: str
    architecture: str
    homepage: str
    source: str  # package, and version where it differs, that it was built from: `name` or `name (version)`
    depends: tuple[tuple[str, ...], ...]  # each: alternatives
    provides: tuple[str, ...]
    paragraph: str


def read_packages(root: Path) -> dict[str, Package]:
    """Every installed package, by name."""
    found = {}
    for paragraph in (root / STATUS).read_text(encoding="utf-8").strip().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            wanted = ",".join(fields[name] for name in ("Pre-Depends", "Depends") if name in fields)
            found[fields["Package"]] = Package(
                fields["Package"],
                fields["Version"],
                fields["Architecture"],
                fields.get("Homepage", ""),
                fields.get("Source", ""),
                tuple(tuple(_names(one, "|")) for one in wanted.split(",") if one.strip()),
                tuple(_names(fields.get("Provides", ""), ",")),
                paragraph,
            )
    return found


def _names(text: str, separator: str) -> Iterator[str]:
    """`libc6 (>= 2.36), python3:any` -> libc6, python3."""
    for part in text.split(separator):
        match = re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", part)
        if match is not None:
            yield match[1]


def closure(packages: Mapping[str, Package], roots: Iterable[str], without: Collection[str]) -> set[str]:
    """What `roots` need, and those they need in turn; not `without`, nor what these alone need.

    Args:
        packages: what is installed. A root that is not is passed over: bases differ in what they are made of.
        roots: names.
        without: names of packages that others depend on for their installation alone.
    """
    kept: set[str] = set()
    todo = [name for name in roots if name in packages]
    while todo:
        name = todo.pop()
        if name in kept or name in without:
            continue
        kept.add(name)
        for alternatives in packages[name].depends:
            fitting = [one for one in alternatives if one in packages]
            fitting += [one for one, other in packages.items() if set(other.provides) & set(alternatives)]
            todo += fitting[:1]
    return kept


def leave(root: Path, packages: Mapping[str, Package], kept: Collection[str]) -> int:
    """Remove every package that is not kept: its files, its scripts, its entry. Returns how many left."""
    stay = {path for name in kept for path in _files(root, packages[name])}
    for name, package in packages.items():
        if name in kept:
            continue
        # Deepest first, so that directories are empty when their turn comes.
        for path in sorted(_files(root, package) - stay, key=lambda path: len(path.parts), reverse=True):
            _remove(path)
    for path in (root / INFO).iterdir():  # maintainer scripts need a shell; lists and checksums are for scanners
        if path.name.split(".")[0].split(":")[0] not in {name.split(".")[0] for name in kept} or path.suffix not in (
            ".list",
            ".md5sums",
        ):
            path.unlink()
    status = "\n\n".join(packages[name].paragraph for name in sorted(kept))
    (root / STATUS).write_text(status + "\n\n", encoding="utf-8")
    return len(packages) - len(kept)


def _files(root: Path, package: Package) -> set[Path]:
    """What a package owns. Directories are shared: they go when they are empty."""
    for name in (package.name, f"{package.name}:{package.architecture}"):
        path = root / INFO / f"{name}.list"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            return {_real(root, line) for line in lines if line not in ("", "/", "/.")}
    return set()


def _real(root: Path, line: str) -> Path:
    """The path a list names, where it lies: /bin and /lib are links into /usr, and packages say either."""
    path = root / line.lstrip("/")
    return path.parent.resolve() / path.name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):  # not empty: another's
            path.rmdir()
    else:
        path.unlink(missing_ok=True)


def copyright_of(root: Path, package: Package) -> Path | None:
    """The file with a package's licences, if it has one."""
    path = root / "usr/share/doc" / package.name / "copyright"
    with suppress(OSError):
        return path.resolve(strict=True)
    return None
