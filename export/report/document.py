"""A bundle's page: one HTML file that needs no other and no script, the same for the same bundle but for its times."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

from polyhead.export.errors import ExportError
from polyhead.export.report import contents
from polyhead.export.report.costs import costs
from polyhead.export.report.look import LOOK
from polyhead.export.report.proofs import proofs, records
from polyhead.export.report.speeds import chosen, speeds
from polyhead.export.report.times import Times
from polyhead.export.timing.results import Results
from polyhead.models.markup import Markup, facts, opening, paragraph, rounded, said
from polyhead.serving.bundle import Bundle

__all__ = ["default_place", "page", "require_outside", "write_report"]


def default_place(bundle: Bundle) -> Path:
    """Beside the bundle, which is sealed by its hashes: `bundles/digits.html` of `bundles/digits`."""
    folder = bundle.folder.resolve()
    return folder.with_name(f"{folder.name}.html")


def require_outside(bundle: Bundle, out: Path) -> Path:
    """A place that a page may be written to.

    Raises:
        ExportError: it is inside the bundle, or a directory.
    """
    if out.resolve().is_relative_to(bundle.folder.resolve()):
        raise ExportError(f"{out} is in the bundle, which is sealed by its hashes: give another --out")
    if out.is_dir():
        raise ExportError(f"{out} is a directory: give the name of a file, as in {out / 'report.html'}")
    return out


def write_report(bundle: Bundle, out: Path, times: Times | None = None, results: Results | None = None) -> Path:
    """Write a bundle's page, whole or not at all; an earlier one is replaced.

    Args:
        bundle: an opened bundle.
        out: the file.
        times: of its parts on this machine; None where they were not measured.
        results: what `polyhead bench` found; None where it was not run.

    Raises:
        ExportError: the place is inside the bundle, or a directory.
        BundleError: a file of the bundle is damaged.
    """
    require_outside(bundle, out)
    text = page(bundle, times, results)
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.chmod(0o644)
        draft.replace(out)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return out


def page(bundle: Bundle, times: Times | None = None, results: Results | None = None) -> str:
    """The page's HTML; see `write_report`."""
    return "\n".join(_html(bundle, times, results)) + "\n"


def _html(bundle: Bundle, times: Times | None, results: Results | None) -> Iterator[str]:
    spec, manifest = bundle.spec, bundle.manifest
    sections = list(_sections(bundle, times, results))
    yield from opening(f"{spec.name} {spec.version}: bundle report", LOOK)
    yield f"<header><h1>{escape(spec.name)} <small>{escape(spec.version)}, bundle report</small></h1>"
    yield paragraph(spec.description)
    yield f"{facts(_facts(bundle))}</header>"
    links = "".join(f'<a href="#{place}">{escape(title)}</a>' for place, title, _ in sections)
    yield f'<nav aria-label="Contents">{links}</nav><main>'
    for place, title, content in sections:
        yield f'<section aria-labelledby="{place}"><h2 id="{place}">{escape(title)}</h2>'
        yield f"{content}</section>"
    version = manifest.versions.get("polyhead", "")
    yield f"</main><footer>Bundle {bundle.digest}, written by Polyhead {escape(version)}.</footer></body></html>"


def _facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """What a reader looks for first."""
    manifest = bundle.manifest
    yield "bundle", bundle.digest[:12]
    yield "heads", said(len(manifest.spec.heads))
    if manifest.parts:
        yield "parameters", rounded(sum(part.parameters for part in manifest.parts.values()))
        counted = [part.flops for part in manifest.parts.values() if part.flops is not None]
        if len(counted) == len(manifest.parts):
            yield "FLOPs a row", rounded(sum(counted))
    yield "graphs", said(len(manifest.graphs))
    yield "size", rounded(sum(entry.size for entry in manifest.files.values()), "B")
    largest = max(manifest.parity[graph.id].largest for graph in manifest.graphs if graph.precision == "fp32")
    yield "largest difference, fp32", f"{largest:.1e}"


def _sections(bundle: Bundle, times: Times | None, results: Results | None) -> Iterator[tuple[str, str, Markup]]:
    """Anchor, title and content of each."""
    manifest = bundle.manifest
    yield "parts", "Trunk and heads", costs(manifest, times)
    tuning = bundle.tuning()
    fast = [] if results is None else [speeds(results, bundle)]
    fast += [] if tuning is None else [chosen(tuning)]
    if fast:
        yield "speed", "Speed", Markup("".join(fast))
    yield "parity", "Parity", proofs(manifest, records(bundle))
    yield "spec", "Spec", Markup(contents.inputs(bundle) + contents.heads(bundle))
    if manifest.metrics:
        yield "metrics", "Training metrics", contents.metrics(manifest)
    yield "graphs", "Graphs", contents.graphs(manifest)
    yield "files", "Files", contents.files(bundle)
    yield "versions", "Versions", contents.versions(manifest)
