"""What is asked for, as a job and its plan, before anything is written."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import choose
from polyhead.serving.runtimes.base import resolve_device
from polyhead.serving.scoring.job import Job, plan_bytes
from polyhead.serving.scoring.planning import plan
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.schema import output_schema
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.listing import require_outside
from polyhead.serving.scoring.sources.opening import choose_reading, open_input, source_of
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import InputFile, Unit

__all__ = ["job_of", "propose"]

PACKAGES = ("polyhead", "pyarrow", "numpy", "tokenizers", "pillow")
OF_RUNTIME = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime")}  # the others are PyTorch's


def propose(
    bundle: Bundle,
    source: str | Path | Sequence[str | Path],
    store: Store,
    settings: ScoreSettings,
    begun: tuple[Job, Sequence[Unit]] | None = None,
) -> tuple[Job, list[Unit]]:
    """The job that scores an input into a store, and its plan.

    Args:
        bundle: opened.
        source: as a user names it.
        store: the destination.
        settings: of the job.
        begun: the job that the destination holds. Where every file is as it was then, and is read in the same way, its
            plan is this one's too: to find the rows of text files again would take a pass over all of them.

    Raises:
        JobRefused: naming what does not fit: the input, a column, a head, a setting.
        InputUnreadable: a file is not of its format.
        RuntimeUnavailable, DeviceUnavailable: the bundle cannot be run as asked.
    """
    chosen = _chosen(bundle, settings)
    require_outside(source, store.address)
    listing = open_input(source, settings.format)
    reading = choose_reading(listing, bundle.spec, settings)
    schema = output_schema(bundle, settings, reading.passed)
    units = _plan_again(begun, reading, settings, listing.files)
    units = units or plan(source_of(reading, listing), settings.unit_rows)
    return job_of(bundle, settings, reading, chosen, schema, units, store.address), units


def _plan_again(
    begun: tuple[Job, Sequence[Unit]] | None, reading: Reading, settings: ScoreSettings, files: Sequence[InputFile]
) -> list[Unit]:
    """The plan of a job that reads the same in the same way; empty where there is none."""
    if begun is None:
        return []
    job, units = begun
    same = replace(job.reading, source=reading.source) == reading and job.settings.unit_rows == settings.unit_rows
    return list(units) if same and {file for unit in units for file in unit.files} == set(files) else []


def job_of(
    bundle: Bundle,
    settings: ScoreSettings,
    reading: Reading,
    chosen: dict[str, str],
    schema: Any,
    units: Sequence[Unit],
    destination: str,
) -> Job:
    """A job of all that decides it.

    Args:
        bundle: opened.
        settings: of the job.
        reading: of its input.
        chosen: graph, runtime, device and precision.
        schema: of its parts.
        units: its plan.
        destination: the address of its store.
    """
    return Job(
        destination=destination,
        bundle=str(bundle.folder.resolve()),
        bundle_digest=bundle.digest,
        bundle_title=bundle.title,
        settings=settings,
        reading=reading,
        chosen=chosen,
        schema=schema,
        plan=hashlib.sha256(plan_bytes(units)).hexdigest(),
        units=len(units),
        rows=sum(unit.rows for unit in units),
        versions=_versions(chosen["runtime"]),
    )


def _chosen(bundle: Bundle, settings: ScoreSettings) -> dict[str, str]:
    """What `auto` comes to here. Of several GPUs that the job may use, none in particular."""
    resolved = resolve_device(settings.device)
    device = "cuda" if settings.device == "auto" and resolved != "cpu" else settings.device.replace("auto", "cpu")
    chosen = choose(bundle, settings.runtime, resolved, settings.precision)
    return {
        "graph": chosen.graph.id,
        "runtime": chosen.runtime,
        "device": device,
        "precision": chosen.graph.precision,
    }


def _versions(runtime: str) -> dict[str, str]:
    installed = {}
    for package in (*PACKAGES, *OF_RUNTIME.get(runtime, ("torch",))):
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # has no part in it
    return installed
