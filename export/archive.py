"""TorchServe's model archive (.mar): a bundle with the files around it, in one zip."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

from polyhead.export.errors import ExportError
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.layout import model_files

__all__ = ["package_mar"]

BUNDLE_FOLDER = "bundle"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest a zip knows: the same bundle makes the same archive


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
    content = model_files(bundle.spec, Settings(), BUNDLE_FOLDER, device="auto")
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=out)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(content):
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content[name])
            archive.writestr(
                zipfile.ZipInfo(f"{BUNDLE_FOLDER}/{MANIFEST}", EPOCH), (bundle.folder / MANIFEST).read_bytes()
            )
            for name in sorted(bundle.manifest.files):
                archive.writestr(zipfile.ZipInfo(f"{BUNDLE_FOLDER}/{name}", EPOCH), bundle.read(name))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target
