from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.driver import Driver
from polyhead.serving.scoring.errors import InputUnreadable, JobLocked, JobRefused, OutputCorrupt
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.lock import locked
from polyhead.serving.scoring.publishing import MANIFEST, SUCCESS
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.sweeping import Swept, sweep
from polyhead.serving.scoring.units import Unit
from polyhead.serving.scoring.verifying import Verified, verify
from tests.unit.serving.scoring.jobs import InlineEngine, job, published, units

PART = "part-00000001.parquet"
QUARANTINED = f"_quarantine/{PART}"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished job."""
    folder = tmp_path / "out"
    Driver(Store.of(folder), job(str(folder), units()), units()).run(InlineEngine(), lambda _news: None)
    return folder


def test_a_whole_output_is_whole(out: Path) -> None:
    verified = verify(out)
    size = sum(len(content) for name, content in published(out).items() if name.endswith(".parquet"))
    assert verified == Verified(parts=3, scored=57, quarantined=3, filtered=0, bytes=size)
    assert verified.words() == (
        f"whole: 3 parts with 57 rows, 3 rows quarantined, 0 filtered out, {size} bytes verified"
    )
    assert verified.plain()["parts"] == 3


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(out: Path, change: Callable[[dict[str, object]], object]) -> None:
    """A manifest that was written anew with its seal, as a careful forger would."""
    manifest = orjson.loads((out / MANIFEST).read_bytes())
    change(manifest)
    content = orjson.dumps(manifest)
    (out / MANIFEST).write_bytes(content)
    (out / SUCCESS).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n")


def replace_rows(out: Path, *, keep_footer: bool) -> None:
    """A part without its last row, entered into manifest and receipt."""
    table = pq.read_table(out / PART)
    metadata = pq.read_metadata(out / PART).metadata
    changed = table.slice(0, table.num_rows - 1)
    kept = {key: value for key, value in metadata.items() if key.startswith(b"polyhead.")}
    (out / PART).unlink()  # the attempt that it may be linked to stays what it was
    pq.write_table(changed.replace_schema_metadata(kept if keep_footer else None), out / PART)
    content = (out / PART).read_bytes()
    file = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(out, lambda manifest: manifest["parts"][1].update(file))  # type: ignore[index]
    path = out / "_polyhead/receipts/00000001.json"
    receipt = orjson.loads(path.read_bytes())
    receipt["receipt"]["output"].update(file)
    path.write_bytes(orjson.dumps(receipt))


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda out: flip(out / PART), f"{PART}: was changed (sha256 "),
    (lambda out: flip(out / QUARANTINED), f"{QUARANTINED}: was changed (sha256 "),
    (lambda out: (out / PART).unlink(), f"{PART}: is missing"),
    (lambda out: (out / PART).write_bytes(b""), f"{PART}: has 0 bytes, the manifest says"),
    (lambda out: (out / QUARANTINED).unlink(), f"{QUARANTINED}: is missing"),
    (lambda out: (out / "part-00000003.parquet").write_bytes(b"x"), "part-00000003.parquet: is not in the manifest"),
    (lambda out: (out / "more.parquet").write_bytes(b"x"), "more.parquet: is not in the manifest, readers would see"),
    (lambda out: flip(out / MANIFEST), MANIFEST),
    (lambda out: (out / MANIFEST).unlink(), f"{MANIFEST}: cannot be read"),
    (lambda out: (out / SUCCESS).write_bytes(b"x"), f"{MANIFEST}: is not the one that _SUCCESS names"),
    (lambda out: (out / "_polyhead/receipts/00000002.json").unlink(), "has no receipt of unit 2"),
    (lambda out: rewrite(out, lambda m: m.update(job="x")), f"{MANIFEST}: is of another job"),
    (lambda out: rewrite(out, lambda m: m["totals"].update(read=61)), f"{MANIFEST}: its totals are not"),  # type: ignore[attr-defined]
    (lambda out: rewrite(out, lambda m: m["parts"].pop(0)), "does not say what the receipt of unit 0 says"),  # type: ignore[attr-defined]
    (lambda out: replace_rows(out, keep_footer=False), f"{PART}: its footer says job nothing, expected"),
    (lambda out: replace_rows(out, keep_footer=True), f"{PART}: has 17 rows, the manifest says 18"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_every_damage_is_found_and_named(out: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(out)
    with pytest.raises(OutputCorrupt) as found:
        verify(out)
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_what_is_said_to_mend_a_part_mends_it(out: Path) -> None:
    before = published(out)
    flip(out / PART)
    with pytest.raises(OutputCorrupt, match=r"remove the unit's receipt in _polyhead/receipts and _SUCCESS"):
        verify(out)
    (out / "_polyhead/receipts/00000001.json").unlink()
    (out / SUCCESS).unlink()
    Driver(Store.of(out), job(str(out), units()), units(), resume=True).run(InlineEngine(), lambda _news: None)
    assert published(out) == before
    verify(out)


def test_an_unfinished_job_is_not_verified(out: Path, tmp_path: Path) -> None:
    (out / SUCCESS).unlink()
    with pytest.raises(JobRefused, match="the job is not finished, go on with --resume"):
        verify(out)
    with pytest.raises(JobRefused, match="this is no directory of polyhead score"):
        verify(tmp_path / "nosuch")


def failed(folder: Path) -> None:
    """A job of which two units are committed, and a third one was begun twice."""

    def fail(unit: Unit) -> None:
        if unit.ordinal == 2:
            raise InputUnreadable("gone")

    with pytest.raises(InputUnreadable):
        Driver(Store.of(folder), job(str(folder), units()), units()).run(InlineEngine(before=fail), lambda _news: None)
    for word in ("a", "b"):
        (folder / "_polyhead/attempts/00000002").mkdir(exist_ok=True)
        (folder / f"_polyhead/attempts/00000002/{word}.parquet").write_bytes(b"half")
    (folder / "_polyhead/tmp/c").write_bytes(b"half")


def test_gc_removes_leftovers_and_nothing_that_counts(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "failed"
    failed(folder)
    assert sweep(folder) == Swept(attempts=2, bytes=8)
    assert sweep(folder) == Swept(0, 0)
    assert not (folder / "_polyhead/tmp").exists()
    Driver(Store.of(folder), job(str(folder), units()), units(), resume=True).run(InlineEngine(), lambda _news: None)
    assert published(folder) == published(out)


def test_gc_of_a_finished_job_leaves_no_attempt(out: Path) -> None:
    (out / "_polyhead/attempts/00000002").mkdir(parents=True)
    (out / "_polyhead/attempts/00000002/late.parquet").write_bytes(b"half")
    assert sweep(out).words() == "removed 1 leftover attempts, 4 bytes"
    assert sweep(out).words() == "nothing to remove"
    assert Ledger.open(Store.of(out), job(str(out), units()), units()).left() == []
    verify(out)


def test_gc_is_refused_while_a_driver_works(tmp_path: Path) -> None:
    folder = tmp_path / "failed"
    failed(folder)
    with locked(Store.of(folder)), pytest.raises(JobLocked):
        sweep(folder)
    assert (folder / "_polyhead/attempts/00000002/a.parquet").exists()
    with pytest.raises(JobRefused, match="this is no directory of polyhead score"):
        sweep(tmp_path / "nosuch")
