"""A bundle's folder appears whole or not at all: written beside its place, then renamed into it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from polyhead.export.errors import ExportError
from polyhead.export.placing import place
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.manifest import FileEntry, Manifest

__all__ = ["file_entries", "publish", "require_free", "rewrite", "staging", "write_manifest"]


def require_free(out: Path, force: bool) -> Path:
    """The place to write to, links followed, so that what a link names is replaced and not the link.

    Raises:
        ExportError: there is something that may not be replaced.
    """
    out = out.resolve()
    if out.exists() and not force:
        raise ExportError(f"{out} exists already: give another --out, or --force to replace it")
    if out.exists() and not (out / MANIFEST).is_file():
        raise ExportError(f"{out} exists and is no bundle: --force replaces bundles only")
    return out


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder beside the target, on the same file system, removed whatever happens."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_entries(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file in a folder but the manifest, by its path there."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        data = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    return files


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest into the folder that it describes."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def publish(folder: Path, out: Path) -> Bundle:
    """Verify the folder and rename it into place.

    A bundle that was there is moved aside first, back where that fails, and removed last.

    Raises:
        BundleError: the folder is no whole bundle.
    """
    bundle = Bundle.open(folder)
    bundle.golden()
    bundle.prototypes()
    place(folder, out)
    return Bundle(out, bundle.manifest, bundle.digest)


def rewrite(bundle: Bundle, out: Path, files: Mapping[str, bytes], **changes: object) -> Bundle:
    """A bundle with other files beside its own, or in their place; the given one is left as it is unless it is `out`.

    Args:
        bundle: an opened bundle.
        out: the new one's directory, as `require_free` returned it.
        files: new content by name.
        changes: to the manifest.

    Raises:
        BundleError: a file is no longer what the manifest names.
    """
    with staging(out) as folder:
        for name in {*bundle.manifest.files, *files}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(files[name] if name in files else bundle.read(name))
        write_manifest(folder, bundle.manifest.model_copy(update={"files": file_entries(folder), **changes}))
        return publish(folder, out)
