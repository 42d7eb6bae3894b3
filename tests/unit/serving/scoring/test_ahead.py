"""What a thread makes ahead: in order, bounded, and gone when nobody wants it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from polyhead.serving.scoring.ahead import ahead


def test_items_come_in_order_made_by_another_thread():
    makers: set[int] = set()

    def made() -> Iterator[int]:
        for item in range(50):
            makers.add(threading.get_ident())
            yield item

    with ahead(made(), lambda _item: 1, 4) as items:
        assert list(items) == list(range(50))
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_no_more_is_made_than_there_is_room_for():
    count, full = [0], threading.Event()

    def made() -> Iterator[int]:
        for item in range(20):
            count[0] += 1
            if count[0] == 3:
                full.set()
            yield item

    with ahead(made(), lambda _item: 10, 30) as items:
        assert full.wait(5)
        assert not threading.Event().wait(0.05)
        assert count[0] == 3
        assert next(items) == 0
    assert count[0] <= 4


def test_an_item_larger_than_the_room_is_made_all_the_same():
    with ahead(iter([1, 2, 3]), lambda _item: 100, 1) as items:
        assert list(items) == [1, 2, 3]


def test_what_is_raised_comes_after_the_items_before_it():
    def made() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    with ahead(made(), lambda _item: 1, 10) as items:
        assert next(items) == 1
        with pytest.raises(LookupError, match="gone"):
            next(items)


def test_the_source_is_closed_by_whoever_leaves():
    closed = []

    def made() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.get_ident())

    before = threading.active_count()
    with ahead(made(), lambda _item: 1, 2) as items:
        next(items)
    assert len(closed) == 1
    assert closed[0] != threading.get_ident()  # a reader is used by one thread alone
    assert threading.active_count() == before
