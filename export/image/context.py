"""The folder that an image with bundles inside is built from: the same bundles, the same bytes.

context/
  Dockerfile
  bundles/digits-1.0/…      each bundle as it was verified
  config.properties         where one was given
  …                         Polyhead's sources, where there is no base image to stand on
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from polyhead.export.errors import ExportError
from polyhead.export.placing import Kind, claim, place
from polyhead.export.staging import staging
from polyhead.serving.bundle import MANIFEST, Bundle

__all__ = ["TARGETS", "write_context"]

TARGETS = ("cpu", "gpu")
MARK = b"# Written by polyhead containerize."
BUNDLES = "bundles"
CONFIG = "config.properties"
# Where a checkout has its sources: this file's folder is export/image.
CHECKOUT = Path(__file__).resolve().parent.parent.parent
EPOCH = 0  # every file's time, so that the same contents are the same layer


def write_context(
    bundles: Sequence[Bundle],
    out: Path,
    target: str,
    base: str | None,
    config: Path | None = None,
    force: bool = False,
) -> Path:
    """Write a build context, whole or not at all.

    Args:
        bundles: opened bundles, each of another name or version.
        out: the folder to write.
        target: `cpu` or `gpu`; of an image made from the sources.
        base: an image made by Polyhead's Dockerfile, which the new one stands on; None builds from the sources too.
        config: a config.properties in place of the image's.
        force: whether a context written before may be replaced.

    Raises:
        ExportError: two bundles are one model, there is something at `out`, or there is no base and no checkout.
    """
    titles = [bundle.title for bundle in bundles]
    twice = {title for title in titles if titles.count(title) > 1}
    if twice:
        raise ExportError(f"model {min(twice)} was given twice: an image holds a name and version once")
    sources = [] if base else _sources()
    kind = Kind(
        "build context", ("Dockerfile", MARK), ["Dockerfile", ".dockerignore", BUNDLES, CONFIG, *_tops(sources)]
    )
    place_at = claim(out, force, kind)
    with staging(place_at) as folder:
        for bundle in bundles:
            _copy_bundle(bundle, folder / BUNDLES / _folder(bundle))
        for path in sources:
            _write(folder / path, (CHECKOUT / path).read_bytes())
        if config is not None:
            _write(folder / CONFIG, config.read_bytes())
        _write(folder / "Dockerfile", _dockerfile(bundles, target, base, config is not None))
        _write(folder / ".dockerignore", b"**/__pycache__\n")
        _settle(folder)
        place(folder, place_at)
    return place_at


def _folder(bundle: Bundle) -> str:
    return bundle.title.replace("/", "-")


def _copy_bundle(bundle: Bundle, target: Path) -> None:
    """What was verified: each file is read, and its hash compared, once more."""
    for name in bundle.manifest.files:
        _write(target / name, bundle.read(name))
    _write(target / MANIFEST, (bundle.folder / MANIFEST).read_bytes())
    if Bundle.open(target).digest != bundle.digest:
        raise ExportError(f"{bundle.folder}: its manifest changed while it was copied: start again")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _settle(folder: Path) -> None:
    """The same times and rights for everybody's umask and every day."""
    for root, _, files in os.walk(folder, topdown=False):
        for path in [*(Path(root, name) for name in files), Path(root)]:
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (EPOCH, EPOCH))


def _dockerfile(bundles: Sequence[Bundle], target: str, base: str | None, configured: bool) -> bytes:
    """A few lines on a base image, or Polyhead's own Dockerfile with those lines behind it."""
    named = ",".join(f"{bundle.title}@sha256:{bundle.digest}" for bundle in bundles)
    titles = ", ".join(bundle.title for bundle in bundles)
    own = "" if base else (CHECKOUT / "Dockerfile").read_text(encoding="utf-8") + "\n"
    lines = [
        f"FROM {base or target}",
        f'LABEL org.opencontainers.image.title="Polyhead: {titles}" \\',
        f'      io.polyhead.models="{named}"',
        *([f"COPY --chown=0:0 {CONFIG} /etc/polyhead/{CONFIG}"] if configured else []),
        f"COPY --chown=0:0 {BUNDLES} /models",
    ]
    return b"\n".join([MARK, own.encode() + "\n".join(lines).encode(), b""])


def _sources() -> list[Path]:
    """Of a checkout, what its .dockerignore lets into a build.

    Raises:
        ExportError: this is no checkout.
    """
    ignore = CHECKOUT / ".dockerignore"
    if not ignore.is_file() or not (CHECKOUT / "Dockerfile").is_file():
        raise ExportError(
            "this installation has no Dockerfile to build from: give --base IMAGE, built from Polyhead's sources"
        )
    allowed = [line[1:].strip() for line in ignore.read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    return sorted(path for name in allowed for path in _walk(Path(name)))


def _walk(path: Path) -> Iterator[Path]:
    """The files below a path of the checkout, without compiled ones."""
    whole = CHECKOUT / path
    if whole.is_dir():
        for inner in sorted(whole.iterdir()):
            if inner.name != "__pycache__":
                yield from _walk(path / inner.name)
    elif whole.is_file():
        yield path


def _tops(sources: Sequence[Path]) -> list[str]:
    return sorted({path.parts[0] for path in sources})
