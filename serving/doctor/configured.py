"""config.properties, and the bundles: what the server would be started with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyhead.serving.bundle import Bundle
from polyhead.serving.doctor.finding import Finding, good, problem
from polyhead.serving.errors import PolyheadError
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.settings import ServiceSettings, Settings
from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration

__all__ = ["Configured", "bundle_bytes", "configuration", "proven", "whole"]


@dataclass(frozen=True)
class Configured:
    """A config.properties, read: the file, the settings of each model, of the server, and of the front door."""

    file: Configuration
    settings: Settings
    service: ServiceSettings
    front: FrontDoorSettings


def configuration(path: Path | None) -> Configured:
    """The file as `polyhead serve` reads it.

    Raises:
        LaunchError: naming the line.
    """
    read = Configuration.load(path or DEFAULT_CONFIG)
    source = str(path or "config.properties")
    service = read.service_with({}, source)
    return Configured(read, read.settings_with({}, source), service, read.front_with({}, source))


def whole(folder: Path) -> tuple[Bundle | None, Finding]:
    """A bundle, where it opens, and how it is."""
    try:
        bundle = Bundle.open(folder)
    except PolyheadError as error:
        why = "the server refuses to load it, and serves the others"
        return None, problem("bundle", str(error), why, f"copy {folder.name} again, or polyhead export it again")
    files, size = len(bundle.manifest.files), bundle_bytes([bundle]) / 1e6
    what = f"{folder}: {bundle.title}, {files} files of {size:,.1f} MB with the right hashes, {bundle.digest[:12]}"
    return bundle, good("bundle", what)


def bundle_bytes(bundles: Sequence[Bundle]) -> int:
    """Bytes of all files."""
    return sum(file.size for bundle in bundles for file in bundle.manifest.files.values())


def proven(bundle: Bundle, settings: Settings) -> Iterator[Finding]:
    """Whether the graph that would serve gives the golden samples' answers on this machine."""
    from polyhead.serving.loading import load_engine

    try:
        loaded = load_engine(
            bundle, settings.runtime, settings.device, settings.precision, settings.threads_per_worker()
        )
    except PolyheadError as error:
        yield problem("golden", str(error), "a worker would refuse to load it", f"polyhead verify {bundle.folder}")
        return
    rows, graph = bundle.golden().rows, loaded.chosen.graph.id
    what = f"{bundle.title}: {graph} in {loaded.engine.runtime.name} on {loaded.device} reproduces {rows} samples"
    yield good("golden", what)
