"""A bundle as a TorchServe model: an archive (.mar), or the same files in a folder (TorchServe's "no-archive")."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from polyhead.export.errors import ExportError
from polyhead.export.placing import Kind, claim, place
from polyhead.export.staging import staging
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.handler import HANDLER_FILE, HANDLER_SOURCE
from polyhead.serving.torchserve.layout import CONFIG_FILE, model_files

__all__ = ["package_mar", "package_no_archive"]

BUNDLE_FOLDER = "bundle"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest a zip knows: the same bundle makes the same archive
# Python keeps the handler's bytecode beside it once a worker has run.
FOLDER = Kind(
    "model folder",
    (HANDLER_FILE, HANDLER_SOURCE.partition("\n")[0].encode()),
    ("MAR-INF", HANDLER_FILE, CONFIG_FILE, BUNDLE_FOLDER, "__pycache__"),
)


def package_mar(bundle: Bundle, out: Path, force: bool = False) -> Path:
    """Write `<name>-<version>.mar` into a folder.

    The archive is stored, not deflated: weights do not shrink, and it opens faster. It needs the package
    `polyhead[serve]` in the Python that runs TorchServe's workers.

    Args:
        bundle: an opened bundle.
        out: the folder; made where missing.
        force: replace an archive that is there already.

    Raises:
        ExportError: the archive exists.
        BundleError: a file changed since the bundle was opened.
    """
    target = out / f"{bundle.spec.name}-{bundle.spec.version}.mar"
    if target.exists() and not force:
        raise ExportError(f"{target} exists already: give another --out, or --force to replace it")
    out.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=out)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in _content(bundle):
                archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def package_no_archive(bundle: Bundle, out: Path, force: bool = False) -> Path:
    """Write the folder `<name>` into a model store: the files of the archive, which TorchServe then need not unpack.

    The folder appears whole or not at all. A worker reads the bundle where it lies, so that a store on a disk that
    several machines share holds it once.

    Args:
        bundle: an opened bundle.
        out: the model store; made where missing.
        force: replace a folder that this function wrote.

    Raises:
        ExportError: there is something that may not be replaced.
        BundleError: a file changed since the bundle was opened.
    """
    target = claim(out / bundle.spec.name, force, FOLDER)
    with staging(target) as folder:
        for name, data in _content(bundle):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        place(folder, target)
    return target


def _content(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Every file by its path: those around the bundle first, then the bundle, each in the order of names."""
    around = model_files(bundle.spec, Settings(), BUNDLE_FOLDER, device="auto")
    for name in sorted(around):
        yield name, around[name]
    yield f"{BUNDLE_FOLDER}/{MANIFEST}", (bundle.folder / MANIFEST).read_bytes()
    for name in sorted(bundle.manifest.files):
        yield f"{BUNDLE_FOLDER}/{name}", bundle.read(name)
