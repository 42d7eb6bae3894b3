"""The model store: one small folder per version, which tells TorchServe's workers where the bundle lies."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.layout import model_files

__all__ = ["ModelStore", "Stored"]


@dataclass(frozen=True)
class Stored:
    """One version in the store.

    Attributes:
        name: of its folder in the store.
        reports: where its workers say how loading went.
    """

    name: str
    reports: Path


class ModelStore:
    """Folders for TorchServe inside of the launcher's own.

    Args:
        folder: the launcher's.
        settings: of every model.
        max_response_size: bytes of the answers of one batch.
    """

    def __init__(self, folder: Path, settings: Settings, max_response_size: int) -> None:
        self.path, self.counts = folder / "store", folder / "metrics"
        self._reports, self._settings, self._max_response_size = folder / "reports", settings, max_response_size
        self._stored: dict[str, Stored] = {}
        self._given = 0
        for path in (self.path, self.counts, self._reports):
            path.mkdir()

    def add(self, bundle: Bundle) -> Stored:
        """Write a version's folder. By number, since names and versions may both hold dashes and dots."""
        name = f"model-{self._given}"
        self._given += 1
        stored = Stored(name, self._reports / name)
        stored.reports.mkdir()
        launch = {
            "report": str(stored.reports / "worker"),
            "digest": bundle.digest,
            "max_response_size": self._max_response_size,
            "metrics": str(self.counts),
            "busy": str(stored.reports),
        }
        folder, settings = str(bundle.folder.resolve()), self._settings
        for file, content in model_files(bundle.spec, settings, folder, settings.device, launch).items():
            path = self.path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._stored[bundle.title] = stored
        return stored

    def of(self, bundle: Bundle) -> Stored:
        """Where a version lies.

        Raises:
            LaunchError: it is not there any more.
        """
        found = self._stored.get(bundle.title)
        if found is None:
            raise LaunchError(f"model {bundle.title} was removed from the model store")
        return found

    def names(self, bundles: Sequence[Bundle]) -> list[str]:
        """The folders of some versions."""
        return [self.of(bundle).name for bundle in bundles]

    def remove(self, bundle: Bundle) -> None:
        """Forget a version."""
        stored = self._stored.pop(bundle.title)
        shutil.rmtree(self.path / stored.name, ignore_errors=True)
        shutil.rmtree(stored.reports, ignore_errors=True)
