"""Which versions of which models are served, which of them answers requests without a version, and which did before."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.served import Served
from polyhead.serving.side.metadata import Description, describe

__all__ = ["Entry", "Roster", "in_order", "version_key"]

PART = re.compile(r"\d+|[A-Za-z]+")


def version_key(version: str) -> list[tuple[int, int, str]]:
    """What versions are sorted by: number by number, so 1.10 comes after 1.9; 2.0rc1 comes before 2.0."""
    parts = [(2, int(part), "") if part.isdigit() else (0, 0, part) for part in PART.findall(version)]
    return [*parts, (1, 0, "")]


def in_order(bundles: Sequence[Bundle], defaults: Sequence[str] = ()) -> list[Bundle]:
    """Bundles by the order of their models' names as given, of each its default first, then the highest version.

    Args:
        bundles: each of another name or version.
        defaults: `name/version` each; of a model that is not among them the highest version is the default.

    Raises:
        LaunchError: a default is no bundle's, or two are one model's.
    """
    names = list(dict.fromkeys(bundle.spec.name for bundle in bundles))
    titles = [bundle.title for bundle in bundles]
    for title in defaults:
        if title not in titles:
            raise LaunchError(f"polyhead_defaults: {title} is not among the bundles: there are {', '.join(titles)}")
    models = [title.partition("/")[0] for title in defaults]
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise LaunchError(f"polyhead_defaults: several versions of {twice}: a model has one default")
    highest = sorted(bundles, key=lambda one: (one.title in defaults, version_key(one.spec.version)), reverse=True)
    return sorted(highest, key=lambda bundle: names.index(bundle.spec.name))


@dataclass(frozen=True)
class Entry:
    """One version of a model.

    Attributes:
        served: what runs.
        description: what is told of it.
        default: whether it answers requests that name no version.
        previous: whether it did so before the last change; `rollback` goes back to it.
        leaving: whether it is being removed: it answers what it has, and takes nothing new.
    """

    served: Served
    description: Description
    default: bool = False
    previous: bool = False
    leaving: bool = False

    @property
    def bundle(self) -> Bundle:
        """What is served."""
        return self.served.bundle

    @property
    def name(self) -> str:
        """Of the model."""
        return self.bundle.spec.name

    @property
    def version(self) -> str:
        """Of the model."""
        return self.bundle.spec.version


class Roster:
    """The versions that are served. The first of a model is its default, until another is promoted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def entries(self, name: str | None = None) -> list[Entry]:
        """All versions, or those of one model; of each model in the order of the versions."""
        with self._lock:
            return [entry for entry in self._entries if name in (None, entry.name)]

    def find(self, name: str, version: str | None = None) -> Entry | None:
        """A version, or a model's default; None where there is none."""
        wanted = [entry for entry in self.entries(name) if version == entry.version or (not version and entry.default)]
        return wanted[0] if wanted else None

    def previous(self, name: str) -> Entry | None:
        """The version that was a model's default before; None where there was none, or it is gone."""
        return next((entry for entry in self.entries(name) if entry.previous), None)

    def add(self, served: Served) -> Entry:
        """A further version."""
        made = Entry(served, describe(served))
        with self._lock:
            first = all(entry.name != made.name for entry in self._entries)
            made = replace(made, default=first)
            names = list(dict.fromkeys([*(entry.name for entry in self._entries), made.name]))
            self._entries = sorted(
                [*self._entries, made], key=lambda entry: (names.index(entry.name), version_key(entry.version))
            )
        return made

    def remove(self, entry: Entry) -> None:
        """A version that is no longer served."""
        with self._lock:
            self._entries = [other for other in self._entries if other.bundle is not entry.bundle]

    def promote(self, entry: Entry) -> None:
        """Make a version its model's default, and remember which was."""
        with self._lock:
            self._entries = [self._promoted(other, entry) for other in self._entries]

    def _promoted(self, other: Entry, entry: Entry) -> Entry:
        if other.name != entry.name:
            return other
        if other.bundle is entry.bundle:
            return replace(other, default=True, previous=False)
        return replace(other, default=False, previous=other.default)

    def leave(self, entry: Entry, leaving: bool) -> None:
        """Say that a version is being removed, or stays after all."""
        with self._lock:
            self._entries = [
                replace(other, leaving=leaving) if other.bundle is entry.bundle else other for other in self._entries
            ]
