"""Whether an output is what its manifest says, to the last byte."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from polyhead.serving.scoring.errors import JobRefused, OutputCorrupt
from polyhead.serving.scoring.job import INNER, JOB, Job, load_plan
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.publishing import MANIFEST, QUARANTINE, SUCCESS, faults, is_sealed, totals
from polyhead.serving.scoring.quarantine import QUARANTINE as QUARANTINE_SCHEMA
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.writing import PREFIX

__all__ = ["Verified", "verify"]

PIECE = 4 * 1024 * 1024
REPAIR = "remove the unit's receipt in _polyhead/receipts and _SUCCESS, then go on with --resume to score it again"


@dataclass(frozen=True)
class Verified:
    """An output that is whole.

    Attributes:
        parts: files of scored rows.
        scored, quarantined, filtered: rows.
        bytes: of parts and quarantine.
    """

    parts: int
    scored: int
    quarantined: int
    filtered: int
    bytes: int

    def plain(self) -> dict[str, int]:
        """As JSON holds it."""
        return asdict(self)

    def words(self) -> str:
        """As a person reads it."""
        return (
            f"whole: {self.parts} parts with {self.scored} rows, {self.quarantined} rows quarantined, "
            f"{self.filtered} filtered out, {self.bytes} bytes verified"
        )


def verify(destination: str | Path) -> Verified:
    """Read everything that was published, and compare it with the manifest, the receipts and the plan.

    Raises:
        JobRefused: there is no job, or it is not finished.
        OutputCorrupt: naming the file that is missing, changed, or should not be there.
    """
    store = Store.of(destination)
    if not store.exists(JOB):
        raise JobRefused(f"{store.where(JOB)}: is not there: this is no directory of polyhead score")
    job = Job.read(store)
    if not store.exists(SUCCESS):
        raise JobRefused(f"{store.where(SUCCESS)}: is not there: the job is not finished, go on with --resume")
    manifest = _manifest(store, job)
    ledger = Ledger.open(store, job, load_plan(store, job))
    _check_receipts(ledger, manifest)
    _check_listing(store, manifest)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for check in [pool.submit(_check_file, store, job, *entry) for entry in _entries(manifest, job.schema)]:
            check.result()
    counts = manifest["totals"]
    size = sum(entry["size"] for entry, _ in _entries(manifest, job.schema))
    return Verified(len(manifest["parts"]), counts["scored"], counts["quarantined"], counts["filtered"], size)


def _manifest(store: Store, job: Job) -> Mapping[str, Any]:
    try:
        content = store.read(MANIFEST)
        manifest: Mapping[str, Any] = orjson.loads(content)
    except (FileNotFoundError, orjson.JSONDecodeError) as error:
        raise OutputCorrupt(f"{store.where(MANIFEST)}: cannot be read ({error}): go on with --resume") from None
    if not is_sealed(content, store.read(SUCCESS)):
        raise OutputCorrupt(f"{store.where(MANIFEST)}: is not the one that {SUCCESS} names: go on with --resume")
    if manifest["job"] != job.root or base64.b64decode(manifest["schema"]) != job.schema.serialize().to_pybytes():
        raise OutputCorrupt(f"{store.where(MANIFEST)}: is of another job than {JOB}: score into another directory")
    return manifest


def _check_receipts(ledger: Ledger, manifest: Mapping[str, Any]) -> None:
    """Manifest and receipts tell the same of every unit, and together what the totals say."""
    missing = ledger.left()
    if missing:
        raise OutputCorrupt(f"{ledger.store.where(INNER)}: has no receipt of unit {missing[0].ordinal}")
    entries = {entry["unit"]: entry for entry in manifest["parts"]}
    receipts = [ledger.receipts[unit.ordinal] for unit in ledger.units]
    for unit, receipt in zip(ledger.units, receipts, strict=True):
        entry = entries.get(unit.ordinal, {})
        told = (receipt.output.sha256, receipt.read, receipt.scored, receipt.quarantined, receipt.filtered)
        if told != tuple(entry.get(name) for name in ("sha256", "read", "scored", "quarantined", "filtered")):
            where = ledger.store.where(MANIFEST)
            raise OutputCorrupt(f"{where}: does not say what the receipt of unit {unit.ordinal} says: {REPAIR}")
        if not receipt.adds_up or receipt.read != unit.rows:
            raise OutputCorrupt(f"{ledger.store.where(INNER)}: the receipt of unit {unit.ordinal} does not add up")
    if totals(receipts) != manifest["totals"] or faults(receipts) != Counter(manifest["faults"]):
        raise OutputCorrupt(f"{ledger.store.where(MANIFEST)}: its totals are not those of its parts")


def _check_listing(store: Store, manifest: Mapping[str, Any]) -> None:
    """Everything that readers see is in the manifest; what is missing is found when it is read."""
    known = {entry["path"] for entry in (*manifest["parts"], *manifest["quarantine"])} | {MANIFEST, SUCCESS}
    for name in store.names():
        if name not in known and not name.startswith(f"{INNER}/"):
            what = "quarantined rows" if name.startswith(f"{QUARANTINE}/") else "rows"
            raise OutputCorrupt(f"{store.where(name)}: is not in the manifest, readers would see its {what}: remove it")


def _entries(manifest: Mapping[str, Any], schema: pa.Schema) -> Sequence[tuple[Mapping[str, Any], pa.Schema]]:
    quarantine = [(entry, QUARANTINE_SCHEMA) for entry in manifest["quarantine"]]
    return [*((entry, schema) for entry in manifest["parts"]), *quarantine]


def _check_file(store: Store, job: Job, entry: Mapping[str, Any], schema: pa.Schema) -> None:
    name = entry["path"]
    where = store.where(name)
    size = store.size(name)
    if size != entry["size"]:
        got = "is missing" if size is None else f"has {size} bytes, the manifest says {entry['size']}"
        raise OutputCorrupt(f"{where}: {got}: {REPAIR}")
    digest = hashlib.sha256()
    with store.open(name) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
        if digest.hexdigest() != entry["sha256"]:
            got = f"sha256 {digest.hexdigest()[:12]}, the manifest says {entry['sha256'][:12]}"
            raise OutputCorrupt(f"{where}: was changed ({got}): {REPAIR}")
        file.seek(0)
        _check_parquet(where, pq.ParquetFile(file), job, entry, schema)


def _check_parquet(where: str, file: pq.ParquetFile, job: Job, entry: Mapping[str, Any], schema: pa.Schema) -> None:
    """What a file says of itself: of use where the manifest was written with the wrong files."""
    footer = file.metadata.metadata or {}
    unit = int(Path(entry["path"]).stem.rpartition("-")[2])
    for key, value in {"job": job.root, "bundle": job.bundle_digest, "unit": str(unit)}.items():
        said = footer.get((PREFIX + key).encode(), b"nothing").decode(errors="replace")
        if said != value:
            raise OutputCorrupt(f"{where}: its footer says {key} {said}, expected {value}: {REPAIR}")
    if file.metadata.num_rows != entry["rows"]:
        raise OutputCorrupt(f"{where}: has {file.metadata.num_rows} rows, the manifest says {entry['rows']}: {REPAIR}")
    if not file.schema_arrow.remove_metadata().equals(schema.remove_metadata()):
        raise OutputCorrupt(f"{where}: does not have the columns of the job: {REPAIR}")
