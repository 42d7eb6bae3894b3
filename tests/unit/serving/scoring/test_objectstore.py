"""A whole job on an object store that speaks S3, while it works and while it fails."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyhead.serving.scoring.driver import Driver
from polyhead.serving.scoring.errors import InputUnreadable, JobLocked, JobRefused
from polyhead.serving.scoring.lease import Lease
from polyhead.serving.scoring.lock import locked
from polyhead.serving.scoring.report import Report
from polyhead.serving.scoring.retrying import retry
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.sweeping import sweep
from polyhead.serving.scoring.units import Unit
from polyhead.serving.scoring.verifying import verify
from tests.unit.serving.scoring import objectstore
from tests.unit.serving.scoring.jobs import InlineEngine, job, published, units


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with objectstore.store() as port:
        yield port


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's times are whole seconds; nobody claims at the same time here but where it says so."""
    monkeypatch.setattr(Lease, "SETTLE", 0.01)


@pytest.fixture
def quiet(tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed job publishes on this machine."""
    drive(str(tmp_path / "quiet"), InlineEngine())
    return published(tmp_path / "quiet")


def drive(address: str, engine: InlineEngine, *, resume: bool = False) -> Report:
    store = Store.of(address)
    return Driver(store, job(address, units()), units(), resume=resume).run(engine, lambda _news: None)


def seen(address: str) -> dict[str, bytes]:
    """All that readers see."""
    store = Store.of(address)
    return {name: store.read(name) for name in store.names() if not name.startswith("_polyhead/")}


def gone(unit: Unit) -> None:
    if unit.ordinal == 1:
        raise InputUnreadable("gone")


def test_a_job_on_an_object_store_is_the_same_job(port: int, quiet: dict[str, bytes]) -> None:
    address = objectstore.address(port, f"out/{uuid.uuid4().hex}")
    with pytest.raises(InputUnreadable):
        drive(address, InlineEngine(before=gone))
    assert seen(address) == {}
    engine = InlineEngine()
    report = drive(address, engine, resume=True)
    assert engine.done == [1, 2]
    assert (report.scored, report.quarantined) == (57, 3)
    assert seen(address) == quiet
    assert verify(address).scored == 57
    assert Store.of(address).names("_polyhead/attempts") == []
    with pytest.raises(JobRefused, match="a job was begun here"):
        drive(address, engine)
    assert sweep(address).attempts == 0
    assert retry(address, engine=InlineEngine(bad=frozenset({3}))).scored == 59
    assert verify(address).quarantined == 1


def test_a_second_driver_on_an_object_store_is_refused(port: int) -> None:
    address = objectstore.address(port, f"out/{uuid.uuid4().hex}")
    with locked(Store.of(address)) as lock:
        lock.check()
        time.sleep(1.1)  # the next claim is of another second, as SETTLE makes sure of where it is not shortened
        with pytest.raises(JobLocked, match=r"process \d+ on .* works on it"):
            drive(address, InlineEngine())
        lock.check()


@pytest.mark.parametrize("every", [11])
def test_a_store_that_fails_now_and_then_loses_nothing(port: int, quiet: dict[str, bytes], every: int) -> None:
    path = f"out/{uuid.uuid4().hex}"
    with objectstore.faults(port, every) as proxy:
        address = objectstore.address(proxy.server_port, path)
        drive(address, InlineEngine())
        assert verify(address).scored == 57
        assert proxy.failed > 5
    assert seen(objectstore.address(port, path)) == quiet


def test_a_bucket_that_is_not_there_is_told_at_once(port: int) -> None:
    address = objectstore.address(port, "out").replace(objectstore.BUCKET, "nosuch")
    with pytest.raises(OSError, match="nosuch"):
        drive(address, InlineEngine())
