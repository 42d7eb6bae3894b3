"""Answers of one structure whose numbers are close: batches of other sizes are summed in another order."""

from __future__ import annotations

import pytest

__all__ = ["assert_alike"]


def assert_alike(one: object, other: object) -> None:
    """JSON of the same keys in the same order, the same words, and numbers that are close."""
    assert type(one) is type(other)
    if isinstance(one, dict) and isinstance(other, dict):
        assert list(one) == list(other)
        assert_alike(list(one.values()), list(other.values()))
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    else:
        assert one == other
