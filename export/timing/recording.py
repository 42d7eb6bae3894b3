"""The fastest graph per kind of device, chosen from what was timed and written into the bundle's tuning file."""

from __future__ import annotations

from polyhead.export.errors import ExportError
from polyhead.export.staging import require_free, rewrite
from polyhead.export.timing.results import Results, Timing
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import BundleError
from polyhead.serving.manifest import Device, Manifest
from polyhead.serving.tuning import TUNING, Choice, Tuning

__all__ = ["fastest", "record"]

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


def fastest(results: Results, manifest: Manifest, batch: int, any_precision: bool = False) -> dict[Device, Choice]:
    """The graph that answered most rows per second, by kind of device.

    A graph is a candidate where its answers passed here, on a device that it is meant for.

    Args:
        results: what was timed.
        manifest: of the bundle that was.
        batch: rows of a forward pass to choose by.
        any_precision: graphs of less than fp32 are candidates too. They answer a little differently, so nobody gets
            one who has not asked.

    Raises:
        ExportError: the batch was not timed, or no graph is a candidate.
    """
    if batch not in results.batches:
        raise ExportError(f"batch {batch} was not timed (batches: {', '.join(map(str, results.batches))})")
    found: dict[Device, Choice] = {}
    for kind in DEVICES:
        candidates = [
            timing
            for timing in results.timings
            if timing.device.partition(":")[0] == kind
            and timing.batch == batch
            and timing.graph is not None
            and kind in manifest.graph(timing.graph).meant
            and timing.runtime != "aotinductor"  # compiled for one machine, and a bundle travels
            and (any_precision or timing.precision == "fp32")
        ]
        if candidates:
            found[kind] = _choice(max(candidates, key=lambda timing: timing.rows_per_second), results)
    if not found:
        wanted = "graph" if any_precision else "fp32 graph (--any-precision takes others)"
        raise ExportError(f"bundle {results.model}: no {wanted} was timed on a device that it is meant for")
    return found


def _choice(timing: Timing, results: Results) -> Choice:
    return Choice(
        graph=str(timing.graph),
        runtime=timing.runtime,
        threads=results.threads,
        batch=timing.batch,
        rows_per_second=timing.rows_per_second,
        machine=results.machines[timing.device],
    )


def record(bundle: Bundle, choices: dict[Device, Choice]) -> Bundle:
    """Write a bundle anew, in its place, with these choices; what was chosen for other devices stays.

    Raises:
        BundleError: a file is no longer what the manifest names.
    """
    try:
        known = bundle.tuning()
    except BundleError:  # damaged, or of graphs that are gone: this is how one mends it
        known = None
    tuning = Tuning(devices={**({} if known is None else known.devices), **choices})
    return rewrite(bundle, require_free(bundle.folder, force=True), {TUNING: tuning.dump()})
