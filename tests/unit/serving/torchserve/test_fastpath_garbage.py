"""Garbage collection between batches."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from polyhead.serving.torchserve.fastpath.garbage import BATCHES, LEFT, BetweenBatches


@pytest.fixture
def between() -> Iterator[BetweenBatches]:
    gc.collect()
    try:
        yield BetweenBatches()
    finally:
        gc.enable()


class Node:
    def __init__(self) -> None:
        self.me = self


def test_a_batch_is_never_interrupted(between):
    before = [stats["collections"] for stats in gc.get_stats()]
    kept = [Node() for _ in range(LEFT)]
    assert [stats["collections"] for stats in gc.get_stats()] == before
    between.pause()
    assert gc.get_stats()[2]["collections"] == before[2] + 1
    assert len(kept) == LEFT


def test_what_batches_leave_is_freed_when_it_is_much(between):
    last = weakref.ref([Node() for _ in range(LEFT)][-1])
    assert last() is not None
    between.pause()
    assert last() is None


def test_a_little_is_freed_in_the_end(between):
    left = weakref.ref(Node())
    for _ in range(BATCHES - 1):
        between.pause()
    assert left() is not None
    between.pause()
    assert left() is None
