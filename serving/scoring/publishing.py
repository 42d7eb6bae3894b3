"""From receipts to what readers see: parts, `_manifest.json`, then `_SUCCESS`. Every step may be done again.

While `_SUCCESS` is there, it names the manifest by its hash, and the manifest names every part by its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import orjson

from polyhead.serving.scoring.errors import OutputCorrupt
from polyhead.serving.scoring.job import LAYOUT, Job
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.lock import Lock
from polyhead.serving.scoring.receipts import Receipt, Written
from polyhead.serving.scoring.store import Store

__all__ = [
    "MANIFEST",
    "QUARANTINE",
    "SUCCESS",
    "is_published",
    "manifest_of",
    "part_name",
    "publish",
    "quarantine_name",
]

MANIFEST = "_manifest.json"
SUCCESS = "_SUCCESS"
QUARANTINE = "_quarantine"


def part_name(ordinal: int) -> str:
    """The name of a unit's part."""
    return f"part-{ordinal:08d}.parquet"


def quarantine_name(ordinal: int) -> str:
    """The name of the file with a unit's quarantined rows."""
    return f"{QUARANTINE}/{part_name(ordinal)}"


def manifest_of(job: Job, ledger: Ledger) -> dict[str, Any]:
    """What `_manifest.json` says. Nothing in it was measured: the same job has the same manifest, whatever happened."""
    receipts = [ledger.receipts[unit.ordinal] for unit in ledger.units]
    return {
        "layout": LAYOUT,
        "job": job.root,
        "bundle": {"title": job.bundle_title, "digest": job.bundle_digest},
        "settings": job.settings.deciding(),
        "chosen": dict(job.chosen),
        "versions": dict(job.versions),
        "columns": {field.name: str(field.type) for field in job.schema},
        "schema": base64.b64encode(job.schema.serialize().to_pybytes()).decode(),
        "plan": job.plan,
        "totals": totals(receipts),
        "faults": dict(sorted(faults(receipts).items())),
        "parts": [_entry(receipt) for receipt in receipts],
        "quarantine": [_file(f, quarantine_name(r.ordinal)) for r in receipts if (f := r.quarantine) is not None],
    }


def totals(receipts: list[Receipt]) -> dict[str, int]:
    """Rows of several units, by what became of them."""
    names = ("read", "scored", "quarantined", "filtered")
    return {name: sum(getattr(receipt, name) for receipt in receipts) for name in names}


def faults(receipts: list[Receipt]) -> Counter[str]:
    """Quarantined rows of several units, by `stage/type`."""
    found: Counter[str] = Counter()
    for receipt in receipts:
        found.update(receipt.faults)
    return found


def publish(job: Job, ledger: Ledger, lock: Lock) -> None:
    """Let readers see the output of every unit.

    Raises:
        OutputCorrupt: what a receipt names is not there any more.
        JobLocked: another driver has taken over.
    """
    store = ledger.store
    lock.check()
    store.delete(SUCCESS)
    for unit in ledger.units:
        receipt = ledger.receipts[unit.ordinal]
        _publish_file(store, receipt.output, part_name(unit.ordinal))
        if receipt.quarantine is not None:
            _publish_file(store, receipt.quarantine, quarantine_name(unit.ordinal))
    wanted = {quarantine_name(r.ordinal) for r in ledger.receipts.values() if r.quarantine is not None}
    for name in store.names(QUARANTINE):  # of a unit whose rows were quarantined before, and are scored now
        if name not in wanted:
            store.delete(name)
    content = orjson.dumps(manifest_of(job, ledger), option=orjson.OPT_INDENT_2) + b"\n"
    lock.check()
    store.put(MANIFEST, content)
    store.put(SUCCESS, _seal(content))


def is_published(ledger: Ledger) -> bool:
    """Whether readers see what the receipts say, all of it."""
    store = ledger.store
    try:
        seal, content = store.read(SUCCESS), store.read(MANIFEST)
    except FileNotFoundError:
        return False
    if not is_sealed(content, seal):
        return False
    manifest: Mapping[str, Any] = orjson.loads(content)
    parts = [_entry(receipt) for receipt in (ledger.receipts.get(u.ordinal) for u in ledger.units) if receipt]
    return bool(manifest["job"] == ledger.identity and manifest["parts"] == parts)


def is_sealed(manifest: bytes, success: bytes) -> bool:
    """Whether `_SUCCESS` is of this manifest."""
    return success == _seal(manifest)


def _seal(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def _publish_file(store: Store, file: Written, target: str) -> None:
    if store.exists(file.path):
        store.publish(file.path, target)
    elif store.size(target) != file.size:  # else it was published before, and its attempt was swept
        raise OutputCorrupt(
            f"{store.where(file.path)}: is gone, and {target} is not it: remove the unit's receipt "
            "(_polyhead/receipts) and go on with --resume to score it again"
        )


def _entry(receipt: Receipt) -> dict[str, Any]:
    counts = ("read", "scored", "quarantined", "filtered", "generation")
    entry = _file(receipt.output, part_name(receipt.ordinal))
    return {**entry, "unit": receipt.ordinal, **{name: getattr(receipt, name) for name in counts}}


def _file(file: Written, name: str) -> dict[str, Any]:
    return asdict(replace(file, path=name))
