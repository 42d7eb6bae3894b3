from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from polyhead.serving.scoring.errors import JobLocked, OutputCorrupt, UnitFailed
from polyhead.serving.scoring.ledger import Ledger
from polyhead.serving.scoring.receipts import Receipt
from polyhead.serving.scoring.store import Store
from tests.unit.serving.scoring.jobs import InlineEngine, job, units

RECEIPT = "_polyhead/receipts/00000001.json"


@dataclass
class Held:
    """A lock that this test holds, or has lost."""

    token: int = 7
    lost: bool = False

    def check(self) -> None:
        if self.lost:
            raise JobLocked("lost")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.of(tmp_path)


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger.open(store, job(store.address, units()), units())


def scored(store: Store, ordinal: int = 1) -> Receipt:
    return InlineEngine().score(job(store.address, units()), store, units()[ordinal], None)


def test_a_receipt_is_kept_with_token_and_job(store: Store, ledger: Ledger) -> None:
    receipt = scored(store)
    assert ledger.commit(receipt, Held())
    kept = orjson.loads(store.read(RECEIPT))
    assert (kept["token"], kept["job"]) == (7, job(store.address, units()).identity)
    assert Receipt.of(kept["receipt"]) == receipt
    again = Ledger.open(store, job(store.address, units()), units())
    assert again.receipts == {1: receipt}
    assert [unit.ordinal for unit in again.left()] == [0, 2]


def test_the_first_receipt_of_a_unit_wins(store: Store, ledger: Ledger) -> None:
    first, second = scored(store), scored(store)
    assert first.output.path != second.output.path
    assert ledger.commit(first, Held())
    kept = store.read(RECEIPT)
    assert not ledger.commit(second, Held())
    assert store.read(RECEIPT) == kept
    assert ledger.receipts == {1: first}


def test_a_later_generation_takes_its_place_beside_the_old_one(store: Store, ledger: Ledger) -> None:
    ledger.commit(scored(store), Held())
    again = scored(store)
    assert ledger.commit(again, Held(), 1)
    assert not ledger.commit(scored(store), Held(), 1)
    assert store.names("_polyhead/receipts") == ["_polyhead/receipts/00000001.1.json", RECEIPT]
    opened = Ledger.open(store, job(store.address, units()), units())
    assert opened.receipts == {1: replace(again, generation=1)}


LIES: list[tuple[Callable[[Receipt], Receipt], str]] = [
    (lambda r: replace(r, ordinal=3), "answered for unit 3, which is not in the plan"),
    (lambda r: replace(r, read=21, scored=19), "nothing of it was kept"),
    (lambda r: replace(r, read=19), "unit 1 (/data/in.parquet) has 20 rows, its worker answered for 19"),
    (lambda r: replace(r, scored=17, filtered=1), "17 scored, 2 quarantined, 1 filtered out"),
    (lambda r: replace(r, quarantine=None), "nothing of it was kept"),
    (lambda r: replace(r, faults={"decode/x": 1}), "nothing of it was kept"),
    (lambda r: replace(r, output=replace(r.output, rows=17)), "nothing of it was kept"),
    (lambda r: replace(r, output=replace(r.output, size=3)), "bytes, its worker wrote 3"),
    (lambda r: replace(r, output=replace(r.output, path=r.output.path + "x")), "has no bytes, its worker wrote"),
    (lambda r: replace(r, output=replace(r.output, path="_polyhead/attempts/00000000/x.parquet")), "has no bytes"),
]


@pytest.mark.parametrize(("lie", "said"), LIES)
def test_a_receipt_that_is_not_true_is_not_believed(
    store: Store, ledger: Ledger, lie: Callable[[Receipt], Receipt], said: str
) -> None:
    truth = scored(store)
    with pytest.raises(UnitFailed) as refused:
        ledger.commit(lie(truth), Held())
    assert said in str(refused.value)
    assert store.names("_polyhead/receipts") == []
    assert ledger.commit(truth, Held())


def test_a_driver_that_lost_its_lock_commits_nothing(store: Store, ledger: Ledger) -> None:
    with pytest.raises(JobLocked):
        ledger.commit(scored(store), Held(lost=True))
    assert store.names("_polyhead/receipts") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-5], "00000001.json: is damaged"),
        (lambda content: content.replace(b'"read"', b'"seen"'), "00000001.json: is damaged (TypeError"),
        (lambda content: content.replace(b'"job":"', b'"job":"x'), "00000001.json: is of another job"),
        (lambda content: content.replace(b'"ordinal":1', b'"ordinal":2'), "00000001.json: is no receipt of this job"),
        (lambda content: content.replace(b'"ordinal":1', b'"ordinal":9'), "00000001.json: is no receipt of this job"),
    ],
)
def test_a_ledger_with_a_damaged_receipt_is_not_opened(
    store: Store, ledger: Ledger, change: Callable[[bytes], bytes], said: str
) -> None:
    ledger.commit(scored(store), Held())
    store.put(RECEIPT, change(store.read(RECEIPT)))
    with pytest.raises(OutputCorrupt) as refused:
        Ledger.open(store, job(store.address, units()), units())
    assert said in str(refused.value)
